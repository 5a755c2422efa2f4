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
mod inspect;
mod layout;
mod measures;
mod orders;
mod plan;
mod program;
mod registry;
mod resume;
mod suite;
mod sweep;
mod tidy;
