//! The device itself: resolves tensors to addresses and hands the work to its modules.

use crate::copies::{Copies, STAGING_BYTES};
use crate::driver::{Driver, Launch, Product};
use crate::memory::{ALIGNMENT, Memory, View};
use crate::pace::Pace;
use crate::speed::{LaunchWork, Unit};
use bytemuck::Pod;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vidfit_tensor::*;

/// A card as a [`Device`].
///
/// Operations return before they are done. The first that fails is remembered, all after it are
/// left out, and whoever waits next is told.
pub struct CudaDevice<D: Driver> {
    pub(crate) driver: Arc<D>,
    pub(crate) copies: Copies,
    pub(crate) profile: Profile,
    pub(crate) state: Mutex<State>,
}

/// What changes.
#[derive(Default)]
pub(crate) struct State {
    /// What one launch may be for.
    launch_work: LaunchWork,
    pub memory: Memory,
    pub pace: Pace,
    pub copied: Copied,
    /// What failed first, until somebody is told.
    pub failure: Option<String>,
}

impl State {
    /// Remembers what failed, if it is the first.
    pub fn note(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.failure.get_or_insert(what);
        }
    }

    /// Remembers how it went to ask for a kernel, and keeps the host close to the card.
    fn asked(&mut self, result: Result<(), String>, driver: &dyn Driver) {
        let kept = result.and_then(|()| self.pace.launched(driver));
        self.note(kept);
    }
}

/// What an operation works with. There is one at a time.
pub(crate) struct Session<'a> {
    driver: &'a dyn Driver,
    state: std::cell::RefCell<MutexGuard<'a, State>>,
}

impl Session<'_> {
    /// The architecture whose kernels are run (see [`Driver::architecture`]).
    pub fn architecture(&self) -> u32 {
        self.driver.architecture()
    }

    /// How many of `all` equal parts one launch may be for, each of so many multiply-adds.
    pub fn parts(&self, unit: Unit, of_one: u64, all: usize) -> usize {
        self.state.borrow().launch_work.parts(unit, of_one, all)
    }

    /// Whether the card's tensor cores multiply this type.
    pub fn has_tensor_cores_for(&self, dtype: DType) -> bool {
        match dtype {
            DType::F32 => false,
            DType::F16 => true,
            DType::BF16 => self.architecture() >= 800,
        }
    }

    /// A tensor, as kernels see it.
    pub fn view(&self, tensor: &Tensor) -> View {
        View::new(self.state.borrow().memory.range_of(tensor).start, tensor.dtype())
    }

    /// The same of a tensor that may not be there.
    pub fn view_if(&self, tensor: Option<&Tensor>) -> View {
        tensor.map_or(View::NONE, |tensor| self.view(tensor))
    }

    /// Runs a kernel that touches these tensors and nothing else, and computes no more than it reads. A grid
    /// without blocks is nothing.
    pub fn launch<A: Pod>(
        &self,
        kernel: &'static str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        arguments: &A,
        touched: &[&Tensor],
    ) {
        self.launch_work(kernel, (grid, block), shared_bytes, arguments, touched, (0, Unit::F32));
    }

    /// The same of a kernel that makes products: so many multiply-adds, which one launch may be for.
    pub fn launch_work<A: Pod>(
        &self,
        kernel: &'static str,
        (grid, block): ([u32; 3], [u32; 3]),
        shared_bytes: u32,
        arguments: &A,
        touched: &[&Tensor],
        work: (u64, Unit),
    ) {
        let mut state = self.state.borrow_mut();
        if grid.contains(&0) || state.failure.is_some() {
            return;
        }
        let touched: Vec<_> = touched.iter().map(|tensor| state.memory.range_of(tensor)).collect();
        let arguments = bytemuck::bytes_of(arguments);
        let launch =
            Launch { kernel, grid, block, shared_bytes, arguments, work, touched: &touched };
        let launched = self.driver.launch(launch).map_err(|what| format!("{kernel}: {what}"));
        state.asked(launched, self.driver);
    }

    /// Has a library make a product, if there is one that does: whether it does.
    pub fn product(&self, product: &Product) -> bool {
        let mut state = self.state.borrow_mut();
        if state.failure.is_some() {
            return true;
        }
        let made = self.driver.product(product);
        let is_made = made.is_some();
        if let Some(made) = made {
            state.asked(made, self.driver);
        }
        is_made
    }
}

impl<D: Driver> CudaDevice<D> {
    /// Memory of the host that copies go through, in bytes.
    pub const STAGING_BYTES: u64 = STAGING_BYTES;

    /// The card behind `driver`.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no memory for copies to go through, or no thread.
    pub fn new(driver: D) -> Result<CudaDevice<D>, Error> {
        let driver = Arc::new(driver);
        let copies = Copies::new(driver.clone())
            .map_err(|what| Error::Device { device: driver.name().to_owned(), what })?;
        let profile = CudaDevice::<D>::profile_of(driver.name());
        let launch_work = LaunchWork::of(driver.speed());
        let state = Mutex::new(State { launch_work, ..State::default() });
        Ok(CudaDevice { driver, copies, profile, state })
    }

    /// Has launches be for at most so many multiply-adds from now on where they can be parted; with `None`,
    /// for what suits the card. Parts have the bits of the whole.
    pub fn part_launches(&self, multiply_adds: Option<u64>) {
        let suitable = LaunchWork::of(self.driver.speed());
        self.lock().launch_work = multiply_adds.map_or(suitable, LaunchWork::all);
    }

    /// What a plan must know of any card.
    pub fn profile_of(name: &str) -> Profile {
        Profile {
            name: name.to_owned(),
            alignment: ALIGNMENT,
            scratch_bytes: 0,
            reads_host_memory: false,
        }
    }

    /// The card.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    pub(crate) fn session(&self) -> Session<'_> {
        let state = std::cell::RefCell::new(self.lock());
        Session { driver: &*self.driver, state }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn error(&self, what: String) -> Error {
        Error::Device { device: self.profile.name.clone(), what }
    }
}
