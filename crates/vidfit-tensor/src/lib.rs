//! Tensors that live in one planned arena, and the device that computes on them.
//!
//! A job's memory is not allocated, it is *laid out*: the job's code runs once on a
//! [`DryDevice`], which has no memory and does no arithmetic, while an [`Arena`] records every
//! tensor's birth and death into a [`Trace`]. [`solve`] turns the trace into a [`Layout`]
//! (an offset for every tensor), and the real run replays it: the same code, the same tensors in
//! the same order, each at its planned offset. A deviation is an error, so the planned peak is
//! the peak.
//!
//! ```
//! use vidfit_tensor::{Arena, DType, solve};
//!
//! fn job(arena: &Arena) -> Result<(), vidfit_tensor::Error> {
//!     let a = arena.alloc("a", DType::F32, [1000])?;
//!     let b = arena.alloc("b", DType::F32, [500])?;
//!     drop(a);
//!     let _c = arena.alloc("c", DType::F32, [900])?; // lies where `a` was
//!     drop(b);
//!     Ok(())
//! }
//!
//! let dry = Arena::record(64);
//! job(&dry)?;
//! let layout = solve(&dry.into_trace()?);
//! assert_eq!(layout.peak_bytes, 4032 + 2048);
//!
//! let real = Arena::replay(layout);
//! job(&real)?;
//! assert_eq!(real.finish()?.peak_bytes, 4032 + 2048);
//! # Ok::<(), vidfit_tensor::Error>(())
//! ```

mod arena;
mod clocks;
mod context;
mod device;
mod dry;
mod dtype;
mod error;
mod layout;
mod overlap;
pub mod rates;
mod region;
mod shape;
mod tensor;
mod trace;
mod transfer;

pub use arena::{Arena, Life, Measured, RECORDED_PASSES};
pub use clocks::Tally;
pub use context::{COPY_ATTEMPTS, Context, Monitor, Unwatched};
pub use device::{
    Activation, Attention, Axis, Conv, Device, GroupNorm, LayerNorm, Linear, LowRank, Profile,
    QkNorm, Rope,
};
pub use dry::DryDevice;
pub use dtype::DType;
pub use error::Error;
pub use layout::{Layout, PhasePeak, solve};
pub use overlap::{assert_apart, assert_apart_or_same, both};
pub use rates::Rates;
pub use region::Region;
pub use shape::Shape;
pub use tensor::{HostBytes, Place, Tensor};
pub use trace::{Event, Request, Trace};
pub use transfer::{Copied, Fence, HostBuffer, HostSource};
