//! The device itself: resolves tensors to memory and hands the work to its modules.

use crate::element::{Sink, Source};
use crate::memory::Reservation;
use crate::workers::{SCRATCH_ELEMENTS, Scratch, Workers};
use crate::{ops, product};
use std::sync::{RwLock, RwLockReadGuard};
use vidfit_tensor::*;

/// The host's cores as a [`Device`].
pub struct CpuDevice {
    profile: Profile,
    workers: Workers,
    reservation: RwLock<Option<Reservation>>,
}

/// What an operation works with: threads, their scratch, and the memory behind tensors.
pub(crate) struct Session<'a> {
    workers: &'a Workers,
    held: RwLockReadGuard<'a, Option<Reservation>>,
}

impl Session<'_> {
    fn reservation(&self) -> &Reservation {
        self.held.as_ref().expect("an operation before the arena was reserved")
    }

    /// The elements of `tensor`, to read.
    pub fn source(&self, tensor: &Tensor) -> Source {
        self.reservation().source(tensor)
    }

    /// The elements of `tensor`, to write.
    pub fn sink(&self, tensor: &mut Tensor) -> Sink {
        self.reservation().sink(tensor)
    }

    fn scratch(&self) -> Scratch {
        self.reservation().scratch()
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
    /// A device on `threads` threads; 0 means one for each core this process may use.
    ///
    /// # Errors
    /// [`Error::Device`] if the threads cannot be started.
    pub fn new(threads: usize) -> Result<CpuDevice, Error> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let workers =
            Workers::new(threads).map_err(|what| Error::Device { device: "cpu".into(), what })?;
        Ok(CpuDevice {
            profile: Self::profile_of(threads),
            workers,
            reservation: RwLock::new(None),
        })
    }

    /// The profile of a device on `threads` threads, without starting any.
    pub fn profile_of(threads: usize) -> Profile {
        Profile {
            name: "cpu".into(),
            alignment: 64,
            scratch_bytes: (threads * SCRATCH_ELEMENTS * size_of::<f32>()) as u64,
            reads_host_memory: true,
        }
    }

    fn session(&self) -> Session<'_> {
        let held = self.reservation.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Session { workers: &self.workers, held }
    }

    fn set_reservation(&self, to: Option<Reservation>) {
        *self.reservation.write().unwrap_or_else(std::sync::PoisonError::into_inner) = to;
    }
}

impl Device for CpuDevice {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        self.set_reservation(None);
        let reservation = Reservation::new(bytes, self.workers.threads()).map_err(|error| {
            let what = format!("cannot reserve {bytes} bytes of memory: {error}");
            Error::Device { device: self.profile.name.clone(), what }
        })?;
        self.set_reservation(Some(reservation));
        Ok(())
    }

    fn release(&self) {
        self.set_reservation(None);
    }

    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }

    fn poison(&self, offset: u64, bytes: u64) {
        self.session().reservation().poison(offset, bytes);
    }

    fn download(&self, src: &Tensor, values: &mut [f32]) -> Result<(), Error> {
        ops::transfer::download(&self.session(), src, values);
        Ok(())
    }

    fn upload(&self, values: &[f32], dst: &mut Tensor) {
        ops::transfer::upload(&self.session(), values, dst);
    }

    fn cast(&self, src: &Tensor, dst: &mut Tensor) {
        ops::elementwise::cast(&self.session(), src, dst);
    }

    fn add(&self, src: &Tensor, dst: &mut Tensor) {
        ops::elementwise::add(&self.session(), src, dst);
    }

    fn combine(&self, terms: &[(f64, &Tensor)], dst: &mut Tensor) {
        ops::elementwise::combine(&self.session(), terms, dst);
    }

    fn guide(&self, unconditional: &Tensor, conditional: &Tensor, scale: f64, dst: &mut Tensor) {
        ops::elementwise::guide(&self.session(), unconditional, conditional, scale, dst);
    }

    fn silu(&self, x: &Tensor, dst: &mut Tensor) {
        ops::elementwise::silu(&self.session(), x, dst);
    }

    fn linear(&self, op: Linear<'_>, dst: &mut Tensor) {
        product::linear::run(&self.session(), op, dst);
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32, dst: &mut Tensor) {
        ops::norm::rms_norm(&self.session(), x, weight, eps, dst);
    }

    fn gelu_gate(&self, x: &Tensor, dst: &mut Tensor) {
        ops::elementwise::gelu_gate(&self.session(), x, dst);
    }

    fn layer_norm(&self, op: LayerNorm<'_>, dst: &mut Tensor) {
        ops::norm::layer_norm(&self.session(), op, dst);
    }

    fn qk_norm(&self, op: QkNorm<'_>, x: &mut Tensor) {
        ops::norm::qk_norm(&self.session(), op, x);
    }

    fn attention(&self, op: Attention<'_>, dst: &mut Tensor) {
        product::attention::run(&self.session(), op, dst);
    }

    fn gated_residual(&self, x: &Tensor, gate: &Tensor, dst: &mut Tensor) {
        ops::elementwise::gated_residual(&self.session(), x, gate, dst);
    }

    fn patchify(&self, latents: &[&Tensor], patch: (usize, usize), dst: &mut Tensor) {
        ops::patch::patchify(&self.session(), latents, patch, dst);
    }

    fn unpatchify(&self, src: &Tensor, patch: (usize, usize), dst: &mut Tensor) {
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
        ops::frame::latent_frame(&self.session(), src, corner, factor, padded, dst);
    }

    fn conv(&self, op: Conv<'_>, dst: &mut Tensor) {
        product::conv::run(&self.session(), op, dst);
    }

    fn group_norm_statistics(
        &self,
        frames: &[&Tensor],
        eps: f32,
        partials: &mut Tensor,
        statistics: &mut Tensor,
    ) {
        ops::group_norm::group_norm_statistics(&self.session(), frames, eps, partials, statistics);
    }

    fn group_norm(&self, op: GroupNorm<'_>, frame: &Tensor, dst: &mut Tensor) {
        ops::group_norm::group_norm(&self.session(), op, frame, dst);
    }

    fn upsample(&self, frame: &Tensor, dst: &mut Tensor) {
        ops::frame::upsample(&self.session(), frame, dst);
    }

    fn crop(&self, src: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
        ops::frame::crop(&self.session(), src, corner, dst);
    }

    fn blend(&self, before: &Tensor, tile: &mut Tensor, axis: Axis, extent: usize) {
        ops::frame::blend(&self.session(), before, tile, axis, extent);
    }

    fn to_unit_range(&self, src: &Tensor, dst: &mut Tensor) {
        ops::frame::to_unit_range(&self.session(), src, dst);
    }
}
