//! A test bed for parts of the pipeline: what is recorded is solved, reserved and replayed.

use std::sync::Arc;
use vidfit_cpu::CpuDevice;
use vidfit_tensor::{Arena, Context, Device, DryDevice, Error, Tensor, Unwatched, solve};

/// Runs `body` dry, then on the CPU in exactly the memory that it asked for, poisoned.
pub fn compute<T>(threads: usize, body: impl Fn(&Context<'_>) -> Result<T, Error>) -> T {
    compute_on(&Arc::new(CpuDevice::new(threads).unwrap()), body).0
}

/// As [`compute`], on any device; also the bytes of the arena.
pub fn compute_on<D: Device + 'static, T>(
    device: &Arc<D>,
    body: impl Fn(&Context<'_>) -> Result<T, Error>,
) -> (T, u64) {
    let profile = device.profile().clone();
    let dry = Arena::record(profile.alignment);
    body(&Context::new(&DryDevice::new(profile), &dry, &Unwatched)).unwrap();
    let layout = solve(&dry.into_trace().unwrap());

    device.reserve(layout.peak_bytes).unwrap();
    let poisoned = device.clone();
    let arena = Arena::replay(layout.clone())
        .poison_with(move |offset, bytes| poisoned.poison(offset, bytes));
    let result = body(&Context::new(&**device, &arena, &Unwatched)).unwrap();
    device.finish().unwrap();
    assert_eq!(arena.finish().unwrap().peak_bytes, layout.peak_bytes);
    device.release();
    (result, layout.peak_bytes)
}

/// The elements of `tensor`, widened. A dry run has none: zeros.
pub fn host(cx: &Context<'_>, tensor: &Tensor) -> Result<Vec<f32>, Error> {
    let mut values = vec![0.0; tensor.shape().elements()];
    cx.device.download(tensor, &mut values)?;
    Ok(values)
}
