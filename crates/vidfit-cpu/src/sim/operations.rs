//! The card as a device: each operation is checked, and done by the CPU device.

use super::SimDevice;
use super::config::Direction;
use super::copies::{Failure, Host};
use std::sync::Arc;
use vidfit_tensor::*;

impl Device for SimDevice {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(SimDevice::free_bytes(self))
    }

    fn copied(&self) -> Copied {
        let counted = self.counters();
        Copied {
            uploaded_bytes: counted.uploaded_bytes + counted.directly_uploaded_bytes,
            downloaded_bytes: counted.downloaded_bytes + counted.directly_downloaded_bytes,
        }
    }

    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.release();
        let region = self.take(bytes, false)?;
        self.map(region, bytes).inspect_err(|_| self.release())
    }

    /// Waits for the copies under way.
    fn release(&self) {
        let mut desk = self.settle();
        desk.order.release();
        desk.failed.clear();
        desk.pages.remove(&Region::ARENA);
        self.inner.release();
        self.give_back(Region::ARENA);
    }

    fn reserve_warm(&self, bytes: u64) -> Result<Region, Error> {
        let region = self.take(bytes, true)?;
        self.map(region, bytes).inspect_err(|_| self.give_back(region))?;
        Ok(region)
    }

    /// Waits for the copies under way.
    fn release_warm(&self, region: Region) {
        let mut desk = self.settle();
        desk.order.end(region);
        desk.pages.remove(&region);
        self.inner.release_warm(region);
        self.give_back(region);
    }

    /// Also fails if the checker has found something since the arena was reserved. That a copy
    /// failed is said where its fence is waited for.
    fn finish(&self) -> Result<(), Error> {
        let mut desk = self.settle();
        desk.order.finish();
        self.verdict(&desk)
    }

    fn poison(&self, offset: u64, bytes: u64) {
        let mut desk = self.desk();
        desk.order.poison(offset..offset + bytes);
        // After a violation a copy may be under way here, and cannot be waited for: this is called
        // with the arena's books locked, and the copy may end the life of a host buffer in them.
        if !desk.order.is_violated() {
            self.inner.poison(offset, bytes);
        }
    }

    fn upload(&self, values: &[f32], dst: &mut Tensor) {
        let _desk = self.enter("upload by hand", [], [&*dst]);
        self.card().counters.directly_uploaded_bytes += dst.bytes();
        self.inner.upload(values, dst);
    }

    /// Also fails if the checker has found something since the arena was reserved.
    fn download(&self, src: &Tensor, values: &mut [f32]) -> Result<(), Error> {
        let desk = self.enter("download by hand", [src], []);
        self.card().counters.directly_downloaded_bytes += src.bytes();
        self.inner.download(src, values)?;
        self.verdict(&desk)
    }

    fn fence(&self) -> Fence {
        self.desk().order.fence()
    }

    /// Also fails if the checker has found something since the arena was reserved.
    fn wait(&self, fence: Fence) -> Result<(), Error> {
        let passing = self.desk().order.passing(fence);
        self.copies.wait(passing.clock.copies());
        let mut desk = self.desk();
        desk.order.waited(passing.clock);
        self.heed_failures(&mut desk);
        let is_own =
            |failure: &mut Failure| passing.copy == Some((failure.direction, failure.number));
        let failure = desk.failed.extract_if(.., is_own).next();
        self.verdict(&desk)?;
        match failure {
            Some(Failure { what, .. }) => {
                Err(Error::Transfer { device: self.profile.name.clone(), what })
            }
            None => Ok(()),
        }
    }

    fn begin_upload(&self, source: Arc<dyn HostSource>, dst: &Tensor, after: &[Fence]) -> Fence {
        assert_eq!(source.len(), dst.bytes(), "an upload to {dst:?}");
        self.begin(Direction::Upload, dst, Host::Source(source), after)
    }

    fn begin_download(&self, src: &Tensor, dst: &HostBuffer, after: &[Fence]) -> Fence {
        assert!(src.bytes() <= dst.len(), "a download of {src:?} to {} bytes", dst.len());
        self.begin(Direction::Download, src, Host::Buffer(dst.clone()), after)
    }

    fn cast(&self, src: &Tensor, dst: &mut Tensor) {
        let _desk = self.enter("cast", [src], [&*dst]);
        self.inner.cast(src, dst);
    }

    fn add(&self, src: &Tensor, dst: &mut Tensor) {
        let _desk = self.enter("add", [src, dst], [&*dst]);
        self.inner.add(src, dst);
    }

    fn combine(&self, terms: &[(f64, &Tensor)], dst: &mut Tensor) {
        let _desk = self.enter("combine", terms.iter().map(|(_, term)| *term), [&*dst]);
        self.inner.combine(terms, dst);
    }

    fn guide(&self, unconditional: &Tensor, conditional: &Tensor, scale: f64, dst: &mut Tensor) {
        let _desk = self.enter("guide", [unconditional, conditional], [&*dst]);
        self.inner.guide(unconditional, conditional, scale, dst);
    }

    fn silu(&self, x: &Tensor, dst: &mut Tensor) {
        let _desk = self.enter("silu", [x], [&*dst]);
        self.inner.silu(x, dst);
    }

    fn linear(&self, op: Linear<'_>, dst: &mut Tensor) {
        let reads = [op.x, op.weight].into_iter().chain(op.bias);
        let _desk = self.enter("linear", reads, [&*dst]);
        self.inner.linear(op, dst);
    }

    fn low_rank_add(&self, terms: &[LowRank<'_>], weight: &mut Tensor) {
        let reads = terms.iter().flat_map(|term| [term.a, term.b]).chain([&*weight]);
        let _desk = self.enter("low_rank_add", reads, [&*weight]);
        self.inner.low_rank_add(terms, weight);
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, dst: &mut Tensor) {
        let _desk = self.enter("rms_norm", [x, weight], [&*dst]);
        self.inner.rms_norm(x, weight, eps, dst);
    }

    fn gelu_gate(&self, x: &Tensor, dst: &mut Tensor) {
        let _desk = self.enter("gelu_gate", [x, dst], [&*dst]);
        self.inner.gelu_gate(x, dst);
    }

    fn layer_norm(&self, op: LayerNorm<'_>, dst: &mut Tensor) {
        let reads = [op.x, op.weight, op.bias].into_iter().chain(both(op.modulation));
        let _desk = self.enter("layer_norm", reads, [&*dst]);
        self.inner.layer_norm(op, dst);
    }

    fn qk_norm(&self, op: QkNorm<'_>, x: &mut Tensor) {
        let tables = both(op.rope.map(|rope| (rope.cos, rope.sin)));
        let reads = [op.weight, op.bias, x].into_iter().chain(tables);
        let _desk = self.enter("qk_norm", reads, [&*x]);
        self.inner.qk_norm(op, x);
    }

    fn attention(&self, op: Attention<'_>, dst: &mut Tensor) {
        let reads = [op.q, op.k, op.v].into_iter().chain(op.bias);
        let _desk = self.enter("attention", reads, [&*dst]);
        self.inner.attention(op, dst);
    }

    fn gated_residual(&self, x: &Tensor, gate: &Tensor, dst: &mut Tensor) {
        let _desk = self.enter("gated_residual", [x, gate, dst], [&*dst]);
        self.inner.gated_residual(x, gate, dst);
    }

    fn patchify(&self, latents: &[&Tensor], patch: (usize, usize), dst: &mut Tensor) {
        let _desk = self.enter("patchify", latents.iter().copied(), [&*dst]);
        self.inner.patchify(latents, patch, dst);
    }

    fn unpatchify(&self, src: &Tensor, patch: (usize, usize), dst: &mut Tensor) {
        let _desk = self.enter("unpatchify", [src], [&*dst]);
        self.inner.unpatchify(src, patch, dst);
    }

    fn latent_frame(
        &self,
        src: &Tensor,
        corner: (usize, usize),
        factor: f32,
        padded: bool,
        dst: &mut Tensor,
    ) {
        let _desk = self.enter("latent_frame", [src], [&*dst]);
        self.inner.latent_frame(src, corner, factor, padded, dst);
    }

    fn store_latent(&self, frame: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
        let _desk = self.enter("store_latent", [frame], [&*dst]);
        self.inner.store_latent(frame, corner, dst);
    }

    fn posterior_sample(&self, moments: &Tensor, noise: &Tensor, factor: f64, dst: &mut Tensor) {
        let _desk = self.enter("posterior_sample", [moments, noise], [&*dst]);
        self.inner.posterior_sample(moments, noise, factor, dst);
    }

    fn conv(&self, op: Conv<'_>, dst: &mut [Tensor]) {
        let before = op.accumulate.then_some(&*dst).into_iter().flatten();
        let reads = op.frames.iter().copied().chain([op.weight, op.bias]).chain(before);
        let _desk = self.enter("conv", reads, dst.iter());
        self.inner.conv(op, dst);
    }

    fn group_norm_statistics(
        &self,
        frames: &[&Tensor],
        eps: f32,
        partials: &mut Tensor,
        statistics: &mut Tensor,
    ) {
        let writes = [&*partials, &*statistics];
        let _desk = self.enter("group_norm_statistics", frames.iter().copied(), writes);
        self.inner.group_norm_statistics(frames, eps, partials, statistics);
    }

    fn group_norm(&self, op: GroupNorm<'_>, frame: &Tensor, dst: &mut Tensor) {
        let tables = [op.statistics, op.weight, op.bias].into_iter().chain(both(op.modulation));
        let _desk = self.enter("group_norm", tables.chain([frame]), [&*dst]);
        self.inner.group_norm(op, frame, dst);
    }

    fn upsample(&self, frame: &Tensor, dst: &mut Tensor) {
        let _desk = self.enter("upsample", [frame], [&*dst]);
        self.inner.upsample(frame, dst);
    }

    fn mean_of_frames(&self, frames: &[&Tensor], dst: &mut Tensor) {
        let _desk = self.enter("mean_of_frames", frames.iter().copied(), [&*dst]);
        self.inner.mean_of_frames(frames, dst);
    }

    fn crop(&self, src: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
        let _desk = self.enter("crop", [src], [&*dst]);
        self.inner.crop(src, corner, dst);
    }

    fn blend(&self, before: &Tensor, tile: &mut Tensor, axis: Axis, extent: usize) {
        let _desk = self.enter("blend", [before, tile], [&*tile]);
        self.inner.blend(before, tile, axis, extent);
    }

    fn to_unit_range(&self, src: &Tensor, dst: &mut Tensor) {
        let _desk = self.enter("to_unit_range", [src], [&*dst]);
        self.inner.to_unit_range(src, dst);
    }
}
