//! [`CudaDevice`] as a device: reservations, copies by hand, and the operations' checks.

use crate::copies::{CardEnd, HostEnd, Waiting};
use crate::device::CudaDevice;
use crate::driver::Driver;
use crate::memory::Held;
use crate::ops;
use std::sync::Arc;
use vidfit_tensor::*;

impl<D: Driver> Device for CudaDevice<D> {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(self.driver.free_bytes())
    }

    fn taken_bytes(&self) -> Option<u64> {
        self.driver.taken_bytes()
    }

    fn copied(&self) -> Copied {
        self.lock().copied
    }

    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.release();
        self.take(Region::ARENA, bytes + self.profile.scratch_bytes)
    }

    fn release(&self) {
        self.give_back(Region::ARENA);
    }

    fn reserve_warm(&self, bytes: u64) -> Result<Region, Error> {
        let region = self.lock().memory.next_region();
        let region = region.ok_or_else(|| self.error("too many warm regions".into()))?;
        self.take(region, bytes)?;
        Ok(region)
    }

    fn release_warm(&self, region: Region) {
        if region != Region::ARENA {
            self.give_back(region);
        }
    }

    fn finish(&self) -> Result<(), Error> {
        // Not with the state locked: a copy may end the life of a host buffer, which takes the lock of
        // the arena's books, and under that lock the arena asks this device to poison.
        self.copies.settle();
        let mut state = self.lock();
        let finished = self.driver.finish();
        state.pace.settle(&*self.driver);
        match state.failure.take().or(finished.err()) {
            Some(what) => Err(self.error(what)),
            None => Ok(()),
        }
    }

    fn unit_done(&self) {
        let mut state = self.lock();
        let result = state.pace.keep(&*self.driver);
        state.note(result);
    }

    fn poison(&self, offset: u64, bytes: u64) {
        let mut state = self.lock();
        let first = state.memory.arena().start + offset;
        let result = self.driver.fill(first, bytes, 0xff);
        state.note(result);
    }

    fn upload(&self, values: &[f32], dst: &mut Tensor) {
        assert_eq!(values.len(), dst.shape().elements(), "an upload to {dst:?}");
        let bytes = rounded(values, dst.dtype());
        let mut state = self.lock();
        state.copied.uploaded_bytes += dst.bytes();
        let result = self.driver.write(state.memory.range_of(dst).start, &bytes);
        state.note(result);
    }

    fn download(&self, src: &Tensor, values: &mut [f32]) -> Result<(), Error> {
        assert_eq!(values.len(), src.shape().elements(), "a download of {src:?}");
        let mut bytes = vec![0; src.bytes() as usize];
        let mut state = self.lock();
        state.copied.downloaded_bytes += src.bytes();
        let result = self.driver.read(state.memory.range_of(src).start, &mut bytes);
        state.note(result);
        if let Some(what) = state.failure.take() {
            return Err(self.error(what));
        }
        widen(&bytes, src.dtype(), values);
        Ok(())
    }

    fn fence(&self) -> Fence {
        self.copies.fence().unwrap_or_else(|what| {
            self.lock().note(Err(what));
            // Passed: `finish` tells of the failure.
            Fence::new(0)
        })
    }

    fn wait(&self, fence: Fence) -> Result<(), Error> {
        self.copies.wait(fence).map_err(|waiting| match waiting {
            Waiting::Copy(what) => Error::Transfer { device: self.profile.name.clone(), what },
            Waiting::Card(what) => self.error(what),
        })
    }

    fn begin_upload(&self, source: Arc<dyn HostSource>, dst: &Tensor, after: &[Fence]) -> Fence {
        assert_eq!(source.len(), dst.bytes(), "an upload to {dst:?}");
        let place = {
            let mut state = self.lock();
            state.copied.uploaded_bytes += dst.bytes();
            CardEnd::of(dst, &state.memory)
        };
        self.copies.begin(place, HostEnd::Source(source), after)
    }

    fn begin_download(&self, src: &Tensor, dst: &HostBuffer, after: &[Fence]) -> Fence {
        assert!(src.bytes() <= dst.len(), "a download of {src:?} to {} bytes", dst.len());
        let place = {
            let mut state = self.lock();
            state.copied.downloaded_bytes += src.bytes();
            CardEnd::of(src, &state.memory)
        };
        self.copies.begin(place, HostEnd::Buffer(dst.clone()), after)
    }

    fn cast(&self, src: &Tensor, dst: &mut Tensor) {
        assert_apart_or_same(dst, [src]);
        ops::elementwise::cast(&self.session(), src, dst);
    }

    fn add(&self, src: &Tensor, dst: &mut Tensor) {
        assert_apart_or_same(dst, [src]);
        ops::elementwise::add(&self.session(), src, dst);
    }

    fn combine(&self, terms: &[(f64, &Tensor)], dst: &mut Tensor) {
        assert_apart_or_same(dst, terms.iter().map(|(_, term)| *term));
        ops::elementwise::combine(&self.session(), terms, dst);
    }

    fn guide(&self, unconditional: &Tensor, conditional: &Tensor, scale: f64, dst: &mut Tensor) {
        assert_apart_or_same(dst, [unconditional, conditional]);
        ops::elementwise::guide(&self.session(), unconditional, conditional, scale, dst);
    }

    fn silu(&self, x: &Tensor, dst: &mut Tensor) {
        assert_apart_or_same(dst, [x]);
        ops::elementwise::silu(&self.session(), x, dst);
    }

    fn linear(&self, op: Linear<'_>, dst: &mut Tensor) {
        assert_apart(dst, [op.x, op.weight].into_iter().chain(op.bias));
        ops::linear::linear(&self.session(), op, dst);
    }

    fn low_rank_add(&self, terms: &[LowRank<'_>], weight: &mut Tensor) {
        assert_apart(weight, terms.iter().flat_map(|term| [term.a, term.b]));
        ops::linear::low_rank_add(&self.session(), terms, weight);
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, dst: &mut Tensor) {
        assert_apart(dst, [x, weight]);
        ops::norm::rms_norm(&self.session(), x, weight, eps, dst);
    }

    fn gelu_gate(&self, x: &Tensor, dst: &mut Tensor) {
        assert_apart_or_same(dst, [x]);
        ops::elementwise::gelu_gate(&self.session(), x, dst);
    }

    fn layer_norm(&self, op: LayerNorm<'_>, dst: &mut Tensor) {
        assert_apart_or_same(dst, [op.x]);
        assert_apart(dst, [op.weight, op.bias].into_iter().chain(both(op.modulation)));
        ops::norm::layer_norm(&self.session(), op, dst);
    }

    fn qk_norm(&self, op: QkNorm<'_>, x: &mut Tensor) {
        let tables = both(op.rope.map(|rope| (rope.cos, rope.sin)));
        assert_apart(x, [op.weight, op.bias].into_iter().chain(tables));
        ops::norm::qk_norm(&self.session(), op, x);
    }

    fn attention(&self, op: Attention<'_>, dst: &mut Tensor) {
        assert_apart_or_same(dst, [op.q]);
        assert_apart(dst, [op.k, op.v].into_iter().chain(op.bias));
        // The same bytes are not the same rows if one is wider.
        if dst.columns() != op.q.columns() {
            assert_apart(dst, [op.q]);
        }
        ops::attention::attention(&self.session(), op, dst);
    }

    fn gated_residual(&self, x: &Tensor, gate: &Tensor, dst: &mut Tensor) {
        assert_apart_or_same(dst, [x]);
        assert_apart(dst, [gate]);
        ops::elementwise::gated_residual(&self.session(), x, gate, dst);
    }

    fn patchify(&self, latents: &[&Tensor], patch: (usize, usize), dst: &mut Tensor) {
        assert_apart(dst, latents.iter().copied());
        ops::patch::patchify(&self.session(), latents, patch, dst);
    }

    fn unpatchify(&self, src: &Tensor, patch: (usize, usize), dst: &mut Tensor) {
        assert_apart(dst, [src]);
        ops::patch::unpatchify(&self.session(), src, patch, dst);
    }

    fn latent_frame(
        &self,
        src: &Tensor,
        corner: (usize, usize),
        factor: f32,
        padded: bool,
        dst: &mut Tensor,
    ) {
        assert_apart(dst, [src]);
        ops::frame::latent_frame(&self.session(), src, corner, factor, padded, dst);
    }

    fn store_latent(&self, frame: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
        assert_apart(dst, [frame]);
        ops::frame::store_latent(&self.session(), frame, corner, dst);
    }

    fn posterior_sample(&self, moments: &Tensor, noise: &Tensor, factor: f64, dst: &mut Tensor) {
        assert_apart(dst, [moments]);
        assert_apart_or_same(dst, [noise]);
        ops::elementwise::posterior_sample(&self.session(), moments, noise, factor, dst);
    }

    fn conv(&self, op: Conv<'_>, dst: &mut [Tensor]) {
        op.assert_apart(dst);
        ops::conv::conv(&self.session(), op, dst);
    }

    fn group_norm_statistics(
        &self,
        frames: &[&Tensor],
        eps: f32,
        partials: &mut Tensor,
        statistics: &mut Tensor,
    ) {
        assert_apart(partials, frames.iter().copied());
        assert_apart(statistics, frames.iter().copied().chain([&*partials]));
        ops::group_norm::group_norm_statistics(&self.session(), frames, eps, partials, statistics);
    }

    fn group_norm(&self, op: GroupNorm<'_>, frame: &Tensor, dst: &mut Tensor) {
        let tables = [op.statistics, op.weight, op.bias].into_iter().chain(both(op.modulation));
        assert_apart(dst, tables.chain([frame]));
        ops::group_norm::group_norm(&self.session(), op, frame, dst);
    }

    fn upsample(&self, frame: &Tensor, dst: &mut Tensor) {
        assert_apart(dst, [frame]);
        ops::frame::upsample(&self.session(), frame, dst);
    }

    fn mean_of_frames(&self, frames: &[&Tensor], dst: &mut Tensor) {
        assert_apart(dst, frames.iter().copied());
        ops::frame::mean_of_frames(&self.session(), frames, dst);
    }

    fn crop(&self, src: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
        assert_apart(dst, [src]);
        ops::frame::crop(&self.session(), src, corner, dst);
    }

    fn blend(&self, before: &Tensor, tile: &mut Tensor, axis: Axis, extent: usize) {
        assert_apart(tile, [before]);
        ops::frame::blend(&self.session(), before, tile, axis, extent);
    }

    fn to_unit_range(&self, src: &Tensor, dst: &mut Tensor) {
        assert_apart_or_same(dst, [src]);
        ops::elementwise::to_unit_range(&self.session(), src, dst);
    }
}

impl<D: Driver> CudaDevice<D> {
    fn take(&self, region: Region, bytes: u64) -> Result<(), Error> {
        let held = Held::new(self.driver.clone(), bytes).map_err(|what| self.error(what))?;
        self.lock().memory.hold(region, held);
        Ok(())
    }

    /// Gives a region back once nothing uses it any more.
    fn give_back(&self, region: Region) {
        self.copies.settle();
        let mut state = self.lock();
        let Some(held) = state.memory.let_go(region) else { return };
        let result = self.driver.finish();
        state.note(result);
        drop(held);
    }
}

/// Values as the bytes of their type, each rounded once.
fn rounded(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::F16 => {
            values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
        }
        DType::BF16 => {
            values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect()
        }
    }
}

/// The inverse of [`rounded`].
fn widen(bytes: &[u8], dtype: DType, values: &mut [f32]) {
    let halves = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match dtype {
        DType::F32 => {
            for (value, four) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
        DType::F16 => {
            for (value, two) in values.iter_mut().zip(halves()) {
                *value = half::f16::from_le_bytes(two).to_f32();
            }
        }
        DType::BF16 => {
            for (value, two) in values.iter_mut().zip(halves()) {
                *value = half::bf16::from_le_bytes(two).to_f32();
            }
        }
    }
}
