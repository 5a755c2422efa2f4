//! Statistics as pure functions on numbers and slices: no table, no file, no terminal.

mod wilson;

pub(crate) use wilson::wilson_interval;
