//! The CPU device: every operation of [`vidfit_tensor::Device`] on the host's cores.
//!
//! - `memory`: the arena, and where a tensor's elements are in it.
//! - `workers`: threads, each with a fixed piece of scratch that the plan knows.
//! - `element`: widening loads and rounding stores, so that arithmetic is f32 everywhere.
//! - `simd`: one source, compiled for the instruction sets at hand, the same bits from each.
//! - `product`: matrix products, attention and convolution on one micro-kernel.
//! - `ops`: everything else.
//! - `sim`: a simulated card, which is this device with a card's memory, queues and manners.
//!
//! The same bits come out whatever the number of threads, the instruction set, or the number of
//! rows: every output element of a product is one chain of fused multiply-adds in the order of
//! its inner dimension, and every other sum has a fixed partition.

mod device;
mod element;
mod memory;
mod ops;
mod product;
mod sim;
mod simd;
mod workers;

pub use device::CpuDevice;
pub use sim::{Counters, Direction, Faults, SimConfig, SimDevice};
