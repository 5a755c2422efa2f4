//! The statistics of the program `pipeline`, for its examples: the program itself is `main.rs`.

pub mod statistics;
