//! For every operation, the kernels that it launches.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod frame;
pub(crate) mod group_norm;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod patch;
