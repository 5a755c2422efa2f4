//! The real executable, end to end, and the repository's own order.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

mod analysis;
mod audit;
mod cluster;
mod door;
mod errors;
mod faults;
mod harness;
mod inspect;
mod layout;
mod limits;
mod measures;
mod orders;
mod ownership;
mod plan;
mod program;
mod races;
mod registry;
mod resume;
mod strangers;
mod suite;
mod sweep;
mod tidy;
