//! Work in progress.

pub mod guidance;
pub mod noise;
pub mod positions;
pub mod scheduler;
pub mod tokenizer;
