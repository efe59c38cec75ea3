//! For every operation, the kernels that it launches.

pub(crate) mod elementwise;
