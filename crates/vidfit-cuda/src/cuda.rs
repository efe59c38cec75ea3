//! [`Cuda`]: an NVIDIA card behind its driver, which is loaded when the program runs.
//!
//! - `library`: the driver's library, and the cards that it has. `checkup`: the same for people.
//! - `sys`: the driver's functions. `context`: the context, the queues, the events.
//! - `module`: the kernels. `packing`: those of which a multiprocessor is to have two blocks. `compiling`,
//!   `cache`: that the driver compiles them, and where it keeps them.
//! - `nvml`: how much memory is free, and what others hold of it.
//! - `blas`: matrix products by NVIDIA's library. `words`: what errors mean, and what to do.

mod blas;
mod cache;
mod checkup;
mod compiling;
mod context;
mod library;
mod module;
mod nvml;
mod packing;
mod sys;
mod words;

pub use cache::KernelCache;
pub use checkup::{Checkup, check_up, free_bytes};
pub use compiling::Compiling;
pub use library::Card;
pub use module::Kernel;
pub use packing::Packing;

use crate::driver::{Driver, Event, Launch, Product, Queue};
use crate::speed::Speed;
use blas::Blas;
use compiling::telling_if_slow;
use context::{Context, Queues};
use module::Module;
use nvml::Watch;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::{Mutex, PoisonError};
use vidfit_tensor::Error;
use words::check;

/// What the driver gives memory in.
const PAGE_BYTES: u64 = 2 << 20;

/// A card, with all kernels loaded. Nothing is allocated on it any more but what the device asks for.
pub struct Cuda {
    name: String,
    card: Card,
    speed: Speed,
    overhead_bytes: u64,
    watch: Option<Watch>,
    // Dropped in this order: the context is what the others are in.
    blas: Result<Blas, String>,
    queues: Queues,
    module: Module,
    context: Context,
}

impl Cuda {
    /// Card `index` of this machine.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no driver, no such card, or it cannot be used; it says what to do.
    pub fn open(index: u32) -> Result<Cuda, Error> {
        Cuda::open_telling(index, &|_| {})
    }

    /// The same. If the driver has to compile the kernels first, `tell` is called while it does, from a
    /// thread of its own, and at most once.
    ///
    /// # Errors
    /// As [`Cuda::open`].
    pub fn open_telling(index: u32, tell: &(dyn Fn(&Compiling) + Sync)) -> Result<Cuda, Error> {
        let name = format!("cuda:{index}");
        Cuda::try_open(index, name.clone(), tell)
            .map_err(|what| Error::Device { device: name, what })
    }

    fn try_open(
        index: u32,
        name: String,
        tell: &(dyn Fn(&Compiling) + Sync),
    ) -> Result<Cuda, String> {
        library::load()?;
        if let Some(problem) = library::problem_of(library::version()?) {
            return Err(problem);
        }
        let count = library::count()?;
        if index >= count {
            return Err(match count {
                0 => "the driver sees no card".into(),
                1 => "there is only one card, cuda:0".into(),
                n => format!("there are only {n} cards, cuda:0 to cuda:{}", n - 1),
            });
        }
        let (device, card) = library::card(index)?;
        if let Some(problem) = card.problem() {
            return Err(problem);
        }
        let speed = library::speed(device, &card)?;
        let watch = Watch::new(device);
        let before = watch.as_ref().and_then(Watch::reading);
        let context = Context::new(device)?;
        let (free_with_context, _) = context.memory()?;
        // From here on the context is entered.
        let queues = Queues::new()?;
        let named = card.name.clone();
        let compiling = || Compiling { card: named, cache: KernelCache::find() };
        // A driver that loads modules lazily compiles kernels when they are first used.
        let load_and_warm_up = || {
            let module = Module::new(device, card.capability)?;
            let blas = Err(String::new());
            let cuda =
                Cuda { name, card, speed, overhead_bytes: 0, watch, blas, queues, module, context };
            cuda.warm_up().map(|()| cuda)
        };
        let mut cuda = telling_if_slow(load_and_warm_up, || tell(&compiling()))?;
        cuda.blas = cuda.find_blas(device)?;
        if cuda.blas.is_ok() {
            cuda.context.keep()?;
        }
        let (free, _) = cuda.context.memory()?;
        let after = cuda.watch.as_ref().and_then(Watch::reading);
        // NVML knows what was free before there was a context; without it the context is not counted.
        let taken = match (before, after) {
            (Some(before), Some(after)) => before.taken_until(&after),
            _ => free_with_context.saturating_sub(free),
        };
        cuda.overhead_bytes = first_taken(index, taken);
        Ok(cuda)
    }

    /// Uses each queue and each kernel once, so that what the driver sets up at the first use is there.
    fn warm_up(&self) -> Result<(), String> {
        self.module.warm_up(self.queues.stream(Queue::Computing))?;
        // More than what a driver copies with the command itself.
        const BYTES: usize = 128 << 10;
        let address = self.allocate(BYTES as u64)?;
        let pinned = self.pin(BYTES)?;
        let mut by_hand = vec![0; BYTES];
        // SAFETY: pinned as long as is said, and all three queues are waited for before it goes.
        let copied = unsafe {
            self.begin_write(address, pinned, BYTES)
                .and_then(|()| self.finish())
                .and_then(|()| self.begin_read(address, pinned, BYTES))
        };
        // Memory that is not pinned goes another way; so do fills that are not whole words.
        let filled = copied
            .and_then(|()| self.write(address, &by_hand))
            .and_then(|()| self.read(address, &mut by_hand))
            .and_then(|()| self.fill(address, BYTES as u64, 0xff))
            .and_then(|()| self.fill(address + 2, 1021, 0));
        let finished = self.finish();
        // SAFETY: from `pin`, and no longer used.
        unsafe { self.unpin(pinned, BYTES) };
        self.free(address);
        filled.and(finished)
    }

    /// Matrix products by the library, all of them tried, so that what it loads is there; or why not.
    fn find_blas(&self, device: sys::CUdevice) -> Result<Result<Blas, String>, String> {
        blas::find(blas::Place {
            driver: self,
            stream: self.queues.stream(Queue::Computing).cast(),
            multiprocessors: library::attribute(device, sys::DEVICE_MULTIPROCESSOR_COUNT)?,
        })
    }

    /// What makes matrix products of f16 and of bf16, in words: a library, its version and its place, or
    /// vidfit's own kernels and why.
    pub fn products(&self) -> String {
        match &self.blas {
            Ok(blas) => blas.to_string(),
            Err(why) => format!("vidfit's own kernels ({why})"),
        }
    }

    /// What the driver says of the card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Memory of the card that is taken by its context, the kernels, cuBLASLt and the driver itself for this
    /// process, in bytes, as the driver's own figures of free memory before and after tell. Without NVML
    /// the context is not in it. What others took or gave back meanwhile is in it only where NVML does not
    /// tell what they hold: on Windows, and in most containers.
    pub fn overhead_bytes(&self) -> u64 {
        self.overhead_bytes
    }

    /// The kernels by name, and what each needs.
    pub fn kernels(&self) -> &HashMap<String, Kernel> {
        self.module.kernels()
    }
}

/// What opening a card has taken in this process when something was first seen of it: what stays from one
/// time to the next is not taken again, and what others take now is not added to it.
fn first_taken(index: u32, bytes: u64) -> u64 {
    static TAKEN: Mutex<BTreeMap<u32, u64>> = Mutex::new(BTreeMap::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let first = taken.entry(index).or_default();
    if *first == 0 {
        *first = bytes;
    }
    *first
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Enters the context, too. If the card has failed, everything in it has.
        let _ = self.finish();
    }
}

impl Driver for Cuda {
    fn name(&self) -> &str {
        &self.name
    }

    fn architecture(&self) -> u32 {
        self.module.architecture()
    }

    fn speed(&self) -> Speed {
        self.speed
    }

    fn free_bytes(&self) -> u64 {
        self.context.memory().map_or(0, |(free, _)| free / PAGE_BYTES * PAGE_BYTES)
    }

    fn taken_bytes(&self) -> Option<u64> {
        self.watch.as_ref()?.reading()?.taken()
    }

    fn allocate(&self, bytes: u64) -> Result<u64, String> {
        self.context.enter()?;
        let mut address = 0;
        let size = usize::try_from(bytes).map_err(|_| "more than can be addressed")?;
        // SAFETY: writes the address.
        let allocated = unsafe { sys::cuMemAlloc_v2(&mut address, size) };
        check(&format!("reserving {bytes} bytes of its memory"), allocated)?;
        Ok(address)
    }

    fn free(&self, address: u64) {
        // That the card has failed is said elsewhere.
        let _ = self.context.enter();
        // SAFETY: the driver refuses what is not an allocation.
        let _ = unsafe { sys::cuMemFree_v2(address) };
    }

    fn launch(&self, launch: Launch<'_>) -> Result<(), String> {
        self.context.enter()?;
        self.module.launch(launch, self.queues.stream(Queue::Computing))
    }

    fn product(&self, product: &Product) -> Option<Result<(), String>> {
        let blas = self.blas.as_ref().ok()?;
        let stream = self.queues.stream(Queue::Computing).cast();
        if let Err(what) = self.context.enter() {
            return Some(Err(what));
        }
        // SAFETY: the context that the library was started in, and its queue.
        unsafe { blas.product(product, stream) }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.context.enter()?;
        let (from, stream) = (bytes.as_ptr().cast(), self.queues.stream(Queue::Computing));
        // SAFETY: so many bytes, which stay until the queue has been waited for: that the driver makes a
        // copy of what is not pinned is its habit, and nothing that it promises.
        let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(address, from, bytes.len(), stream) };
        let waited = self.queues.finish(Queue::Computing);
        check("copying to the card", copied).and(waited)
    }

    fn fill(&self, address: u64, bytes: u64, value: u8) -> Result<(), String> {
        if bytes == 0 {
            return Ok(());
        }
        self.context.enter()?;
        let stream = self.queues.stream(Queue::Computing);
        // SAFETY: the device's own memory.
        let filled = unsafe { sys::cuMemsetD8Async(address, value, bytes as usize, stream) };
        check("filling memory of the card", filled)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), String> {
        if bytes.is_empty() {
            return self.finish();
        }
        self.context.enter()?;
        let (to, stream) = (bytes.as_mut_ptr().cast(), self.queues.stream(Queue::Computing));
        // SAFETY: so many bytes, which nobody else uses until the queue has been waited for.
        let copied = unsafe { sys::cuMemcpyDtoHAsync_v2(to, address, bytes.len(), stream) };
        let waited = self.queues.finish(Queue::Computing);
        check("copying from the card", copied).and(waited)
    }

    fn finish(&self) -> Result<(), String> {
        self.context.enter()?;
        let queues = [Queue::Uploading, Queue::Downloading, Queue::Computing];
        queues.map(|queue| self.queues.finish(queue)).into_iter().collect()
    }

    fn pin(&self, bytes: usize) -> Result<NonNull<u8>, String> {
        self.context.enter()?;
        let mut first: *mut c_void = null_mut();
        // SAFETY: writes the pointer.
        let pinned = unsafe { sys::cuMemHostAlloc(&mut first, bytes, 0) };
        check(&format!("pinning {bytes} bytes of the machine's memory"), pinned)?;
        let first = NonNull::new(first.cast()).ok_or("the driver pinned nothing")?;
        // SAFETY: that many bytes.
        unsafe { first.write_bytes(0, bytes) };
        Ok(first)
    }

    unsafe fn unpin(&self, first: NonNull<u8>, _: usize) {
        let _ = self.context.enter();
        // SAFETY: from `pin`, as the caller says.
        let _ = unsafe { sys::cuMemFreeHost(first.as_ptr().cast()) };
    }

    unsafe fn begin_write(
        &self,
        address: u64,
        from: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), String> {
        self.context.enter()?;
        let (from, stream) = (from.as_ptr().cast(), self.queues.stream(Queue::Uploading));
        // SAFETY: as the caller says.
        let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(address, from, bytes, stream) };
        check("copying to the card", copied)
    }

    unsafe fn begin_read(&self, address: u64, to: NonNull<u8>, bytes: usize) -> Result<(), String> {
        self.context.enter()?;
        let (to, stream) = (to.as_ptr().cast(), self.queues.stream(Queue::Downloading));
        // SAFETY: as the caller says.
        let copied = unsafe { sys::cuMemcpyDtoHAsync_v2(to, address, bytes, stream) };
        check("copying from the card", copied)
    }

    fn record(&self, queue: Queue) -> Result<Event, String> {
        self.context.enter()?;
        self.queues.record(queue)
    }

    fn hold_back(&self, queue: Queue, event: Event) -> Result<(), String> {
        self.context.enter()?;
        self.queues.hold_back(queue, event)
    }

    fn is_passed(&self, event: Event) -> Result<bool, String> {
        self.context.enter()?;
        self.queues.is_passed(event)
    }

    fn wait_for(&self, event: Event) -> Result<(), String> {
        self.context.enter()?;
        self.queues.wait_for(event)
    }

    fn forget(&self, event: Event) {
        self.queues.forget(event);
    }
}
