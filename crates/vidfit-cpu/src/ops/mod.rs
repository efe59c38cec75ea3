//! The operations that are not matrix products.

pub(crate) mod elementwise;
pub(crate) mod frame;
pub(crate) mod group_norm;
pub(crate) mod norm;
pub(crate) mod patch;
pub(crate) mod transfer;
