//! The device that has no memory and does no arithmetic: it counts.

use crate::device::*;
use crate::{Error, Fence, HostBuffer, HostSource, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a dry run has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Multiplications and additions of matrix products, convolutions and attention.
    pub flops: f64,
    /// Bytes read and written by all operations, operands counted once each.
    pub traffic_bytes: f64,
    /// Units of work, as [`Device::unit_done`] counts them.
    pub units: u64,
}

/// Stands in for a device with the given profile, so that a job can be planned by running it.
pub struct DryDevice {
    profile: Profile,
    state: Mutex<(Tally, Vec<usize>)>,
}

impl DryDevice {
    /// A stand-in for a device with this profile.
    pub fn new(profile: Profile) -> Self {
        DryDevice { profile, state: Mutex::new((Tally::default(), Vec::new())) }
    }

    /// What has been counted so far.
    pub fn tally(&self) -> Tally {
        self.lock().0
    }

    fn lock(&self) -> MutexGuard<'_, (Tally, Vec<usize>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, flops: f64, operands: &[&Tensor]) {
        let bytes: u64 = operands.iter().map(|tensor| tensor.bytes()).sum();
        let (tally, repeats) = &mut *self.lock();
        let times = repeats.iter().product::<usize>() as f64;
        tally.flops += flops * times;
        tally.traffic_bytes += bytes as f64 * times;
    }
}

impl Device for DryDevice {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn reserve(&self, _bytes: u64) -> Result<(), Error> {
        Ok(())
    }

    fn release(&self) {}

    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }

    fn begin_repeat(&self, times: usize) {
        self.lock().1.push(times);
    }

    fn end_repeat(&self) {
        self.lock().1.pop();
    }

    fn unit_done(&self) {
        let (tally, repeats) = &mut *self.lock();
        tally.units += repeats.iter().product::<usize>() as u64;
    }

    fn upload(&self, _values: &[f32], dst: &mut Tensor) {
        self.count(0.0, &[dst]);
    }

    fn download(&self, src: &Tensor, _values: &mut [f32]) -> Result<(), Error> {
        self.count(0.0, &[src]);
        Ok(())
    }

    fn fence(&self) -> Fence {
        Fence::new(0)
    }

    fn wait(&self, _fence: Fence) -> Result<(), Error> {
        Ok(())
    }

    fn begin_upload(&self, _: Arc<dyn HostSource>, _dst: &Tensor, _after: &[Fence]) -> Fence {
        Fence::new(0)
    }

    fn begin_download(&self, _src: &Tensor, _dst: &HostBuffer, _after: &[Fence]) -> Fence {
        Fence::new(0)
    }

    fn cast(&self, src: &Tensor, dst: &mut Tensor) {
        self.count(0.0, &[src, dst]);
    }

    fn add(&self, src: &Tensor, dst: &mut Tensor) {
        self.count(0.0, &[src, dst, dst]);
    }

    fn combine(&self, terms: &[(f64, &Tensor)], dst: &mut Tensor) {
        terms.iter().for_each(|(_, term)| self.count(0.0, &[term]));
        self.count(0.0, &[dst]);
    }

    fn guide(&self, unconditional: &Tensor, conditional: &Tensor, _scale: f64, dst: &mut Tensor) {
        self.count(0.0, &[unconditional, conditional, dst]);
    }

    fn silu(&self, x: &Tensor, dst: &mut Tensor) {
        self.count(0.0, &[x, dst]);
    }

    fn linear(&self, op: Linear<'_>, dst: &mut Tensor) {
        let flops = 2.0 * (op.x.rows() * op.x.columns()) as f64 * op.weight.rows() as f64;
        self.count(flops, &[op.x, op.weight, dst]);
    }

    fn rms_norm(&self, x: &Tensor, _weight: &Tensor, _eps: f32, dst: &mut Tensor) {
        self.count(0.0, &[x, dst]);
    }

    fn gelu_gate(&self, x: &Tensor, dst: &mut Tensor) {
        self.count(0.0, &[x, dst, dst]);
    }

    fn layer_norm(&self, op: LayerNorm<'_>, dst: &mut Tensor) {
        self.count(0.0, &[op.x, dst]);
    }

    fn qk_norm(&self, _op: QkNorm<'_>, x: &mut Tensor) {
        self.count(0.0, &[x, x]);
    }

    fn attention(&self, op: Attention<'_>, dst: &mut Tensor) {
        let (rows, width) = (op.q.rows() as f64, op.q.columns() as f64);
        self.count(4.0 * rows * rows * width, &[op.q, op.k, op.v, dst]);
    }

    fn gated_residual(&self, x: &Tensor, _gate: &Tensor, dst: &mut Tensor) {
        self.count(0.0, &[x, dst, dst]);
    }

    fn patchify(&self, latents: &[&Tensor], _patch: (usize, usize), dst: &mut Tensor) {
        latents.iter().for_each(|latent| self.count(0.0, &[latent]));
        self.count(0.0, &[dst]);
    }

    fn unpatchify(&self, src: &Tensor, _patch: (usize, usize), dst: &mut Tensor) {
        self.count(0.0, &[src, dst]);
    }

    fn latent_frame(
        &self,
        _src: &Tensor,
        _corner: (usize, usize),
        _factor: f32,
        _padded: bool,
        dst: &mut Tensor,
    ) {
        self.count(0.0, &[dst, dst]);
    }

    fn conv(&self, op: Conv<'_>, dst: &mut Tensor) {
        let per_output = 2.0 * (op.weight.dims()[0] * op.weight.dims()[1]) as f64;
        self.count(per_output * dst.shape().elements() as f64, op.frames);
        self.count(0.0, &[op.weight, dst]);
    }

    fn group_norm_statistics(
        &self,
        frames: &[&Tensor],
        _eps: f32,
        _partials: &mut Tensor,
        _statistics: &mut Tensor,
    ) {
        self.count(0.0, frames);
    }

    fn group_norm(&self, _op: GroupNorm<'_>, frame: &Tensor, dst: &mut Tensor) {
        self.count(0.0, &[frame, dst]);
    }

    fn upsample(&self, frame: &Tensor, dst: &mut Tensor) {
        self.count(0.0, &[frame, dst]);
    }

    fn crop(&self, _src: &Tensor, _corner: (usize, usize), dst: &mut Tensor) {
        self.count(0.0, &[dst, dst]);
    }

    fn blend(&self, before: &Tensor, _tile: &mut Tensor, _axis: Axis, _extent: usize) {
        self.count(0.0, &[before, before, before]);
    }

    fn to_unit_range(&self, src: &Tensor, dst: &mut Tensor) {
        self.count(0.0, &[src, dst]);
    }
}
