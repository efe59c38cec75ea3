//! The device itself: resolves tensors to memory and hands the work to its modules.

use crate::element::{Sink, Source};
use crate::memory::{ALIGNMENT, Memory, Reservation};
use crate::workers::{Scratch, Workers, scratch_bytes};
use crate::{ops, product};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vidfit_tensor::*;

/// The host's cores as a [`Device`].
///
/// Tensors can be cloned, so nothing keeps a caller from naming memory as the destination of an
/// operation that also reads it, or from two operations at once. Therefore each operation holds
/// the arena's lock until it is done, and asserts that its destination lies apart from what it
/// reads, or, where element `i` of the result needs no other element `i`, exactly upon it.
pub struct CpuDevice {
    profile: Profile,
    workers: Workers,
    memory: Mutex<Memory>,
    transfers: Mutex<Transfers>,
}

/// Copies are done when they are begun; what is left of them are the fences of those that failed.
#[derive(Default)]
struct Transfers {
    begun: u64,
    failed: HashMap<u64, String>,
    copied: Copied,
}

/// What an operation works with: threads, their scratch, and the memory behind tensors. There is
/// one at a time.
pub(crate) struct Session<'a> {
    workers: &'a Workers,
    memory: MutexGuard<'a, Memory>,
}

impl Session<'_> {
    /// The elements of `tensor`, to read.
    pub fn source(&self, tensor: &Tensor) -> Source {
        self.memory.source(tensor)
    }

    /// The elements of `tensor`, to write.
    pub fn sink(&self, tensor: &mut Tensor) -> Sink {
        self.memory.of(tensor).sink(tensor)
    }

    /// The bytes of `tensor`, to read.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        self.memory.of(tensor).bytes(tensor)
    }

    /// The bytes of `tensor`, to write.
    pub fn bytes_mut(&self, tensor: &mut Tensor) -> &mut [u8] {
        self.memory.of(tensor).bytes_mut(tensor)
    }

    fn scratch(&self) -> Scratch {
        self.memory.arena().scratch()
    }

    /// See [`Workers::run`].
    pub fn run(&self, jobs: usize, body: impl Fn(usize, &mut [f32]) + Sync) {
        self.workers.run(self.scratch(), jobs, body);
    }

    pub fn threads(&self) -> usize {
        self.workers.threads()
    }
}

impl CpuDevice {
    /// The most threads of a device. Each has scratch of its own, so a number mistyped is memory.
    pub const MAX_THREADS: usize = 1024;

    /// A device on `threads` threads, at most [`CpuDevice::MAX_THREADS`]; 0 means one for each
    /// core this process may use.
    ///
    /// # Errors
    /// [`Error::Device`] if these are too many, or cannot be started.
    pub fn new(threads: usize) -> Result<CpuDevice, Error> {
        let failed = |what| Error::Device { device: "cpu".into(), what };
        let threads = Self::threads_of(threads);
        if threads > Self::MAX_THREADS {
            let what =
                format!("{threads} threads are more than the {} there can be", Self::MAX_THREADS);
            return Err(failed(what));
        }
        Ok(CpuDevice {
            profile: Self::profile_of(threads),
            workers: Workers::new(threads).map_err(failed)?,
            memory: Mutex::default(),
            transfers: Mutex::default(),
        })
    }

    /// The profile of what [`CpuDevice::new`] makes of `threads`, without starting any. For more
    /// than [`CpuDevice::MAX_THREADS`] it is that of as many.
    pub fn profile_of(threads: usize) -> Profile {
        Profile {
            name: "cpu".into(),
            alignment: ALIGNMENT,
            scratch_bytes: scratch_bytes(Self::threads_of(threads).min(Self::MAX_THREADS)),
            reads_host_memory: true,
        }
    }

    fn threads_of(threads: usize) -> usize {
        match threads {
            0 => std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(Self::MAX_THREADS)),
            n => n,
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.threads()
    }

    /// Works in this memory from now on.
    pub(crate) fn hold(&self, reservation: Reservation) {
        self.lock().hold(reservation);
    }

    /// Works in this memory, too.
    pub(crate) fn hold_warm(&self, region: Region, reservation: Reservation) {
        self.lock().hold_warm(region, reservation);
    }

    /// Why so many bytes cannot be had.
    fn refusal(&self, bytes: u64, error: &std::io::Error) -> Error {
        let what = format!("cannot reserve {bytes} bytes of memory: {error}");
        Error::Device { device: self.profile.name.clone(), what }
    }

    /// The fence of a copy that has come to this end.
    fn ended(&self, result: Result<(), String>) -> Fence {
        let mut transfers = self.transfers();
        transfers.begun += 1;
        let number = transfers.begun;
        if let Err(what) = result {
            transfers.failed.insert(number, what);
        }
        Fence::new(number)
    }

    fn transfers(&self) -> MutexGuard<'_, Transfers> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> Session<'_> {
        Session { workers: &self.workers, memory: self.lock() }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for CpuDevice {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        let mut memory = self.lock();
        memory.let_go();
        let reservation = Reservation::new(bytes, self.workers.threads());
        memory.hold(reservation.map_err(|error| self.refusal(bytes, &error))?);
        Ok(())
    }

    fn release(&self) {
        self.lock().let_go();
    }

    fn reserve_warm(&self, bytes: u64) -> Result<Region, Error> {
        let reservation =
            Reservation::new(bytes, 0).map_err(|error| self.refusal(bytes, &error))?;
        let mut memory = self.lock();
        let region = memory.next_region().ok_or_else(|| {
            self.refusal(bytes, &std::io::Error::other("there were too many before it"))
        })?;
        memory.hold_warm(region, reservation);
        Ok(region)
    }

    fn release_warm(&self, region: Region) {
        self.lock().let_go_warm(region);
    }

    fn copied(&self) -> Copied {
        self.transfers().copied
    }

    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }

    fn poison(&self, offset: u64, bytes: u64) {
        self.session().memory.arena().poison(offset, bytes);
    }

    fn download(&self, src: &Tensor, values: &mut [f32]) -> Result<(), Error> {
        self.transfers().copied.downloaded_bytes += src.bytes();
        ops::transfer::download(&self.session(), src, values);
        Ok(())
    }

    fn upload(&self, values: &[f32], dst: &mut Tensor) {
        self.transfers().copied.uploaded_bytes += dst.bytes();
        ops::transfer::upload(&self.session(), values, dst);
    }

    fn fence(&self) -> Fence {
        Fence::new(0)
    }

    fn wait(&self, fence: Fence) -> Result<(), Error> {
        let mut transfers = self.transfers();
        match transfers.failed.remove(&fence.number()) {
            Some(what) => Err(Error::Transfer { device: self.profile.name.clone(), what }),
            None => Ok(()),
        }
    }

    fn begin_upload(&self, source: Arc<dyn HostSource>, dst: &Tensor, _after: &[Fence]) -> Fence {
        self.transfers().copied.uploaded_bytes += dst.bytes();
        self.ended(ops::transfer::upload_bytes(&self.session(), &*source, &mut dst.clone()))
    }

    fn begin_download(&self, src: &Tensor, dst: &HostBuffer, _after: &[Fence]) -> Fence {
        self.transfers().copied.downloaded_bytes += src.bytes();
        ops::transfer::download_bytes(&self.session(), src, &mut dst.lock());
        self.ended(Ok(()))
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
        product::linear::run(&self.session(), op, dst);
    }

    fn low_rank_add(&self, terms: &[LowRank<'_>], weight: &mut Tensor) {
        assert_apart(weight, terms.iter().flat_map(|term| [term.a, term.b]));
        product::low_rank::run(&self.session(), terms, weight);
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
        product::attention::run(&self.session(), op, dst);
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
        ops::posterior::sample(&self.session(), moments, noise, factor, dst);
    }

    fn conv(&self, op: Conv<'_>, dst: &mut [Tensor]) {
        op.assert_apart(dst);
        for (n, result) in dst.iter_mut().enumerate() {
            product::conv::run(&self.session(), op.single(n), result);
        }
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
        ops::frame::to_unit_range(&self.session(), src, dst);
    }
}
