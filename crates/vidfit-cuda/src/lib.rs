//! The CUDA device: every operation of [`vidfit_tensor::Device`] on NVIDIA cards.
//!
//! - `kernels/`: the kernels, in CUDA C++.
//! - `driver`: what the device asks of a card: memory, copies, launches. `cuda`: [`Cuda`], a real one.
//! - `copies`: the threads that copy beside the computing.
//! - `memory`: the reservations, and where a tensor's elements are in them.
//! - `device`, `operations`: [`CudaDevice`] as a device.
//! - `pace`: how far the host may be ahead of the card. `speed`: how much one launch may be for.
//! - `ops`: for every operation, the kernels it launches.
//!
//! A kernel's source is compiled twice: by NVRTC, ahead of time, for cards; and by g++ for the
//! tests, which run it on the CPU (`emulation/`).

mod copies;
mod cuda;
mod device;
mod driver;
mod memory;
mod operations;
mod ops;
mod pace;
mod speed;

pub use cuda::{
    Card, Checkup, Compiling, Cuda, Kernel, KernelCache, Packing, check_up, free_bytes,
};
pub use device::CudaDevice;
pub use driver::{Driver, Event, Launch, Product, Queue};
pub use speed::{Speed, Unit};
