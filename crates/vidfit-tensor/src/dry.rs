//! The device that has no memory and does no arithmetic: it counts.

use crate::clocks::{Clocks, Queue, Tally};
use crate::device::*;
use crate::rates::{Class, Operation, Rates, THIN_CHANNELS, Work};
use crate::{Copied, DType, Error, Fence, HostBuffer, HostSource, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stands in for a device with the given profile, so that a job can be planned by running it. With
/// the device's rates it also tells the time that the job takes there.
pub struct DryDevice {
    profile: Profile,
    rates: Rates,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clocks: Clocks,
    /// Every operation in turn, if somebody wants to know.
    log: Option<Vec<Operation>>,
}

impl DryDevice {
    /// A stand-in for a device with this profile, on which nothing takes any time.
    pub fn new(profile: Profile) -> Self {
        DryDevice::with_rates(profile, Rates::default())
    }

    /// A stand-in for a device with this profile and these rates.
    pub fn with_rates(profile: Profile, rates: Rates) -> Self {
        DryDevice { profile, rates, state: Mutex::default() }
    }

    /// What has been counted so far.
    pub fn tally(&self) -> Tally {
        self.lock().clocks.tally
    }

    /// The operations that `job` asks for, in turn, those of loops as often as a dry run meets them.
    pub fn operations_of<T>(&self, job: impl FnOnce() -> T) -> (T, Vec<Operation>) {
        self.lock().log = Some(Vec::new());
        let result = job();
        (result, self.lock().log.take().unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an operation into account.
    fn spend(&self, class: Class, dtype: DType, work: Work) {
        let operation = Operation { class, dtype, work };
        let seconds = self.rates.seconds(&operation);
        let State { clocks, log } = &mut *self.lock();
        clocks.tally.flops += work.flops;
        clocks.tally.traffic_bytes += (work.weight_bytes + work.bytes) as f64;
        clocks.compute(seconds);
        if let Some(log) = log {
            log.push(operation);
        }
    }

    /// An operation that is no product: `bytes` in and out, and `functions` values of functions.
    fn stream(&self, class: Class, dtype: DType, bytes: u64, functions: usize) {
        let work = Work { bytes, functions: functions as u64, ..Work::default() };
        self.spend(class, dtype, work);
    }

    /// An operation on each element by itself.
    fn elementwise(&self, bytes: u64, dst: &Tensor) {
        self.stream(Class::Elementwise, dst.dtype(), bytes, 0);
    }

    /// A copy that is begun.
    fn begin_copy(&self, queue: Queue, bytes: u64, after: &[Fence]) -> Fence {
        let cost = match queue {
            Queue::Upload => &self.rates.upload_queue,
            Queue::Download => &self.rates.download_queue,
        };
        let clocks = &mut self.lock().clocks;
        if self.rates.copies_at_once {
            clocks.count_copy(queue, bytes);
            clocks.compute(cost.seconds(bytes));
            return clocks.fence();
        }
        clocks.copy(queue, bytes, cost, after)
    }
}

fn bytes_of(tensors: &[&Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.bytes()).sum()
}

impl Device for DryDevice {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn copied(&self) -> Copied {
        let Tally { uploaded_bytes, downloaded_bytes, .. } = self.tally();
        Copied { uploaded_bytes, downloaded_bytes }
    }

    fn reserve(&self, _bytes: u64) -> Result<(), Error> {
        Ok(())
    }

    fn release(&self) {}

    fn finish(&self) -> Result<(), Error> {
        self.lock().clocks.finish();
        Ok(())
    }

    fn begin_repeat(&self, times: usize) {
        self.lock().clocks.begin_repeat(times);
    }

    fn end_repeat(&self) {
        self.lock().clocks.end_repeat();
    }

    fn unit_done(&self) {
        self.lock().clocks.tally.units += 1;
    }

    fn upload(&self, _values: &[f32], dst: &mut Tensor) {
        self.lock().clocks.count_copy(Queue::Upload, dst.bytes());
        self.stream(Class::Upload, dst.dtype(), dst.bytes(), 0);
    }

    fn download(&self, src: &Tensor, _values: &mut [f32]) -> Result<(), Error> {
        self.lock().clocks.count_copy(Queue::Download, src.bytes());
        self.stream(Class::Download, src.dtype(), src.bytes(), 0);
        Ok(())
    }

    fn fence(&self) -> Fence {
        self.lock().clocks.fence()
    }

    fn wait(&self, fence: Fence) -> Result<(), Error> {
        self.lock().clocks.wait(fence);
        Ok(())
    }

    fn begin_upload(&self, _: Arc<dyn HostSource>, dst: &Tensor, after: &[Fence]) -> Fence {
        self.begin_copy(Queue::Upload, dst.bytes(), after)
    }

    fn begin_download(&self, src: &Tensor, _dst: &HostBuffer, after: &[Fence]) -> Fence {
        self.begin_copy(Queue::Download, src.bytes(), after)
    }

    fn cast(&self, src: &Tensor, dst: &mut Tensor) {
        self.elementwise(bytes_of(&[src, dst]), dst);
    }

    fn add(&self, src: &Tensor, dst: &mut Tensor) {
        self.elementwise(bytes_of(&[src, dst, dst]), dst);
    }

    fn combine(&self, terms: &[(f64, &Tensor)], dst: &mut Tensor) {
        let read: u64 = terms.iter().map(|(_, term)| term.bytes()).sum();
        self.elementwise(read + dst.bytes(), dst);
    }

    fn guide(&self, unconditional: &Tensor, conditional: &Tensor, _scale: f64, dst: &mut Tensor) {
        self.elementwise(bytes_of(&[unconditional, conditional, dst]), dst);
    }

    fn silu(&self, x: &Tensor, dst: &mut Tensor) {
        let bytes = bytes_of(&[x, dst]);
        self.stream(Class::Elementwise, dst.dtype(), bytes, x.shape().elements());
    }

    fn linear(&self, op: Linear<'_>, dst: &mut Tensor) {
        let flops = 2.0 * (op.x.rows() * op.x.columns()) as f64 * op.weight.rows() as f64;
        let functions = match op.activation {
            Activation::None => 0,
            Activation::Silu | Activation::GeluTanh => dst.shape().elements() as u64,
        };
        let (weight_bytes, bytes) = (op.weight.bytes(), bytes_of(&[op.x, dst]));
        let work = Work { flops, weight_bytes, bytes, functions };
        self.spend(Class::Linear, op.weight.dtype(), work);
    }

    fn low_rank_add(&self, terms: &[LowRank<'_>], weight: &mut Tensor) {
        let product =
            |term: &LowRank<'_>| 2.0 * weight.shape().elements() as f64 * term.a.rows() as f64;
        let work = Work {
            flops: terms.iter().map(product).sum(),
            weight_bytes: terms.iter().map(|term| bytes_of(&[term.a, term.b])).sum(),
            bytes: bytes_of(&[weight, weight]),
            functions: 0,
        };
        self.spend(Class::Linear, weight.dtype(), work);
    }

    fn rms_norm(&self, x: &Tensor, _weight: &Tensor, _eps: f32, dst: &mut Tensor) {
        self.stream(Class::Norm, x.dtype(), bytes_of(&[x, dst]), 0);
    }

    fn gelu_gate(&self, x: &Tensor, dst: &mut Tensor) {
        let bytes = bytes_of(&[x, dst, dst]);
        self.stream(Class::Elementwise, dst.dtype(), bytes, x.shape().elements());
    }

    fn layer_norm(&self, op: LayerNorm<'_>, dst: &mut Tensor) {
        self.stream(Class::Norm, op.x.dtype(), bytes_of(&[op.x, dst]), 0);
    }

    fn qk_norm(&self, _op: QkNorm<'_>, x: &mut Tensor) {
        self.stream(Class::Norm, x.dtype(), bytes_of(&[x, x]), 0);
    }

    fn attention(&self, op: Attention<'_>, _dst: &mut Tensor) {
        let (rows, width) = (op.q.rows() as f64, op.q.columns() as f64);
        // Of the destination, which may be wider, as much is written as the queries are.
        let work = Work {
            flops: 4.0 * rows * rows * width,
            weight_bytes: 0,
            bytes: bytes_of(&[op.q, op.k, op.v, op.q]),
            functions: (op.heads * op.q.rows() * op.q.rows()) as u64,
        };
        self.spend(Class::Attention, op.q.dtype(), work);
    }

    fn gated_residual(&self, x: &Tensor, _gate: &Tensor, dst: &mut Tensor) {
        self.elementwise(bytes_of(&[x, dst, dst]), dst);
    }

    fn patchify(&self, latents: &[&Tensor], _patch: (usize, usize), dst: &mut Tensor) {
        self.elementwise(bytes_of(latents) + dst.bytes(), dst);
    }

    fn unpatchify(&self, src: &Tensor, _patch: (usize, usize), dst: &mut Tensor) {
        self.elementwise(bytes_of(&[src, dst]), dst);
    }

    fn latent_frame(
        &self,
        _src: &Tensor,
        _corner: (usize, usize),
        _factor: f32,
        _padded: bool,
        dst: &mut Tensor,
    ) {
        self.elementwise(bytes_of(&[dst, dst]), dst);
    }

    fn store_latent(&self, frame: &Tensor, _corner: (usize, usize), dst: &mut Tensor) {
        self.elementwise(bytes_of(&[frame, frame]), dst);
    }

    fn posterior_sample(&self, moments: &Tensor, noise: &Tensor, _factor: f64, dst: &mut Tensor) {
        let bytes = bytes_of(&[moments, noise, dst]);
        self.stream(Class::Elementwise, dst.dtype(), bytes, dst.shape().elements());
    }

    fn conv(&self, op: Conv<'_>, dst: &mut [Tensor]) {
        let per_output = 2.0 * (op.weight.dims()[0] * op.weight.dims()[1]) as f64;
        // Several at a time take as long as one after the other, which calibrations have measured.
        for (n, result) in dst.iter().enumerate() {
            let work = Work {
                flops: per_output * result.shape().elements() as f64,
                weight_bytes: op.weight.bytes(),
                bytes: bytes_of(op.single(n).frames) + result.bytes(),
                functions: 0,
            };
            let class = match result.columns() {
                ..=THIN_CHANNELS => Class::ThinConvolution,
                _ => Class::Convolution,
            };
            self.spend(class, op.frames[0].dtype(), work);
        }
    }

    fn group_norm_statistics(
        &self,
        frames: &[&Tensor],
        _eps: f32,
        _partials: &mut Tensor,
        _statistics: &mut Tensor,
    ) {
        self.stream(Class::Statistics, frames[0].dtype(), bytes_of(frames), 0);
    }

    fn group_norm(&self, op: GroupNorm<'_>, frame: &Tensor, dst: &mut Tensor) {
        let functions = if op.silu { frame.shape().elements() } else { 0 };
        self.stream(Class::GroupNorm, frame.dtype(), bytes_of(&[frame, dst]), functions);
    }

    fn upsample(&self, frame: &Tensor, dst: &mut Tensor) {
        self.elementwise(bytes_of(&[frame, dst]), dst);
    }

    fn mean_of_frames(&self, frames: &[&Tensor], dst: &mut Tensor) {
        self.elementwise(bytes_of(frames) + dst.bytes(), dst);
    }

    fn crop(&self, _src: &Tensor, _corner: (usize, usize), dst: &mut Tensor) {
        self.elementwise(bytes_of(&[dst, dst]), dst);
    }

    fn blend(&self, before: &Tensor, tile: &mut Tensor, _axis: Axis, _extent: usize) {
        self.elementwise(bytes_of(&[before, before, before]), tile);
    }

    fn to_unit_range(&self, src: &Tensor, dst: &mut Tensor) {
        self.elementwise(bytes_of(&[src, dst]), dst);
    }
}
