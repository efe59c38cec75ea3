//! What model code is handed: a device, an arena, and somebody who watches.

use crate::{Arena, DType, Device, Error, Fence, HostBuffer, HostSource, Shape, Tensor};
use std::sync::Arc;

/// How often a copy between host and device is tried before the run ends.
pub const COPY_ATTEMPTS: usize = 3;

/// Watches a run, and may stop it.
pub trait Monitor: Send + Sync {
    /// Called often, between operations.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the run should end here.
    fn check(&self) -> Result<(), Error>;

    /// Called after each unit of work (a transformer block, a T5 layer, a VAE block).
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the run should end here.
    fn unit_done(&self) -> Result<(), Error>;
}

/// A [`Monitor`] that lets everything pass.
pub struct Unwatched;

impl Monitor for Unwatched {
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn unit_done(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// The surroundings of model code. The same code runs in a dry run and in a real one; only what
/// stands behind these three differs.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Computes.
    pub device: &'a dyn Device,
    /// Gives memory.
    pub arena: &'a Arena,
    monitor: &'a dyn Monitor,
}

impl<'a> Context<'a> {
    /// A context whose run is watched by `monitor`.
    pub fn new(device: &'a dyn Device, arena: &'a Arena, monitor: &'a dyn Monitor) -> Self {
        Context { device, arena, monitor }
    }

    /// Memory for a tensor; see [`Arena::alloc`].
    ///
    /// # Errors
    /// As [`Arena::alloc`].
    pub fn alloc(
        &self,
        label: &str,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Tensor, Error> {
        self.arena.alloc(label, dtype, shape)
    }

    /// A tensor on the device with the values that `values` makes, rounded to `dtype`. A dry run
    /// does not make them.
    ///
    /// # Errors
    /// As [`Arena::alloc`].
    pub fn upload(
        &self,
        label: &str,
        dtype: DType,
        shape: impl Into<Shape>,
        values: impl FnOnce() -> Vec<f32>,
    ) -> Result<Tensor, Error> {
        let mut tensor = self.arena.alloc(label, dtype, shape)?;
        if self.arena.is_recording() {
            self.device.upload(&[], &mut tensor);
        } else {
            self.device.upload(&values(), &mut tensor);
        }
        Ok(tensor)
    }

    /// Copies `source` to `dst` in the order of the computing: after what was asked for before,
    /// and before what is asked for from now on.
    ///
    /// # Errors
    /// As [`Context::arrive`].
    pub fn copy_in(&self, source: &Arc<dyn HostSource>, dst: &Tensor) -> Result<(), Error> {
        let fence = self.device.begin_upload(source.clone(), dst, &[self.device.fence()]);
        self.arrive(fence, source, dst)
    }

    /// Holds the computing back until `source` has arrived in `dst`, by the copy that ends at
    /// `fence`, or by another where that failed.
    ///
    /// # Errors
    /// [`Error::Transfer`] if it failed [`COPY_ATTEMPTS`] times.
    pub fn arrive(
        &self,
        mut fence: Fence,
        source: &Arc<dyn HostSource>,
        dst: &Tensor,
    ) -> Result<(), Error> {
        for _ in 1..COPY_ATTEMPTS {
            match self.device.wait(fence) {
                Err(Error::Transfer { .. }) => {
                    fence = self.device.begin_upload(source.clone(), dst, &[self.device.fence()]);
                }
                other => return other,
            }
        }
        self.device.wait(fence)
    }

    /// Copies `src` to the beginning of `dst` in the order of the computing, as
    /// [`Context::copy_in`].
    ///
    /// # Errors
    /// [`Error::Transfer`] if it failed [`COPY_ATTEMPTS`] times.
    pub fn copy_out(&self, src: &Tensor, dst: &HostBuffer) -> Result<(), Error> {
        let begin = || self.device.begin_download(src, dst, &[self.device.fence()]);
        for _ in 1..COPY_ATTEMPTS {
            match self.device.wait(begin()) {
                Err(Error::Transfer { .. }) => {}
                other => return other,
            }
        }
        self.device.wait(begin())
    }

    /// Names what `body` allocates.
    pub fn scope<T>(&self, name: &str, body: impl FnOnce() -> T) -> T {
        self.arena.scope(name, body)
    }

    /// Runs `body` this many times; see [`Arena::repeat`]. A dry run runs the first pass, the second
    /// and the last, and its device counts the second for all that lie between the two others: the
    /// first finds its queues idle, and the last begins nothing for a pass that follows.
    ///
    /// # Errors
    /// What `body` returns, or a deviation from the plan.
    pub fn repeat<E: From<Error>>(
        &self,
        times: usize,
        mut body: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_dry = self.arena.is_recording();
        self.arena.repeat(times, |pass| {
            let between = times.saturating_sub(2).max(1);
            let stands_for = if is_dry && pass == 1 { between } else { 1 };
            self.device.begin_repeat(stands_for);
            let result = body(pass);
            self.device.end_repeat();
            result
        })
    }

    /// Lets the user stop here, where a unit of work would take long.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the run should end.
    pub fn check(&self) -> Result<(), Error> {
        self.monitor.check()
    }

    /// A unit of work is done: reports it, and lets the user stop here.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the run should end.
    pub fn unit_done(&self) -> Result<(), Error> {
        self.device.unit_done();
        self.monitor.unit_done()
    }
}
