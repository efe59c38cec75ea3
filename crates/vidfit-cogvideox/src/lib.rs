//! CogVideoX as plain functions over tensors.
//!
//! Models: [`t5`], [`transformer`], [`vae`]. What they need around them: [`tokenizer`], [`noise`],
//! [`scheduler`], [`guidance`], [`positions`]. Their weights, by the checkpoint's own names, come
//! through [`weights`]. Nothing here knows which device computes, where weights live, or how much
//! memory there is.

pub mod guidance;
pub mod lora;
pub mod noise;
pub mod positions;
pub mod scheduler;
pub mod t5;
pub mod tokenizer;
pub mod transformer;
pub mod vae;
pub mod weights;
