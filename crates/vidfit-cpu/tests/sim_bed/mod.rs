//! What the tests of the simulated card share: jobs that are planned, and then run on a device.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::sync::Arc;
use std::time::Duration;
use vidfit_cpu::{SimConfig, SimDevice};
use vidfit_tensor::*;

/// A card of 64 MiB with two threads.
pub fn small() -> SimConfig {
    SimConfig { threads: 2, ..SimConfig::new(64 << 20) }
}

/// [`small`], with copies held up by up to this many microseconds, as drawn from `seed`.
pub fn delayed(seed: u64, micros: u64) -> SimConfig {
    SimConfig { seed, copy_delay: Duration::ZERO..=Duration::from_micros(micros), ..small() }
}

pub fn card(config: SimConfig) -> Arc<SimDevice> {
    Arc::new(SimDevice::new(config).unwrap())
}

/// Something to plan and to run.
pub type Job<'a> = &'a dyn Fn(&dyn Device, &Arena) -> Result<(), Error>;

/// Plans `job`, and runs it in exactly what was planned, with every birth and death poisoned.
pub fn play<D: Device + 'static>(device: &Arc<D>, job: Job<'_>) -> Result<(), Error> {
    let profile = device.profile().clone();
    let dry = Arena::record(profile.alignment);
    job(&DryDevice::new(profile), &dry)?;
    let layout = solve(&dry.into_trace()?);
    device.reserve(layout.peak_bytes)?;
    let poisoner = device.clone();
    let arena =
        Arena::replay(layout).poison_with(move |offset, bytes| poisoner.poison(offset, bytes));
    let result = job(&**device, &arena).and_then(|()| device.finish());
    device.release();
    result
}

/// `count` f32 values that depend on `from`, as bytes on the host.
pub fn source(from: usize, count: usize) -> Arc<dyn HostSource> {
    Arc::new(Bytes(values(from, count).iter().flat_map(|value| value.to_le_bytes()).collect()))
}

/// What [`source`] gives.
pub fn values(from: usize, count: usize) -> Vec<f32> {
    (0..count).map(|n| ((from + n * 7) % 61) as f32 / 8.0 - 3.0).collect()
}

/// Bytes on the host.
pub struct Bytes(pub Vec<u8>);

impl HostSource for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        piece.copy_from_slice(&self.0[first as usize..][..piece.len()]);
        Ok(())
    }
}

/// The values of `tensor`.
pub fn fetch(device: &dyn Device, tensor: &Tensor) -> Result<Vec<f32>, Error> {
    let mut values = vec![0.0; tensor.shape().elements()];
    device.download(tensor, &mut values)?;
    Ok(values)
}
