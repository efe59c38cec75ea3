//! What the device asks of a card.

use std::ops::Range;
use std::ptr::NonNull;

/// One run of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The kernel's name in its source.
    pub kernel: &'static str,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// The structure that the kernel is given.
    pub arguments: &'a [u8],
    /// The addresses that it may read or write.
    pub touched: &'a [Range<u64>],
}

/// One of a card's queues. Each does its work in the order in which it is asked for; nothing orders
/// the queues among each other but events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Kernels, and what is written and read by hand.
    Computing,
    /// Copies to the card.
    Uploading,
    /// Copies from the card.
    Downloading,
}

/// A point in a queue, known to the driver that recorded it until it is told to forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event(pub u64);

/// A card, or what stands for one. All that may fail says why in words.
pub trait Driver: Send + Sync + 'static {
    /// What it is called in messages, such as `cuda:0`.
    fn name(&self) -> &str;

    /// The architecture whose kernels it runs, as `__CUDA_ARCH__` has it: some want less shared memory
    /// before sm_80.
    fn architecture(&self) -> u32;

    /// Bytes that could be allocated now.
    fn free_bytes(&self) -> u64;

    /// Memory of so many bytes, more than none; its address is a multiple of 256.
    ///
    /// # Errors
    /// Why there is none.
    fn allocate(&self, bytes: u64) -> Result<u64, String>;

    /// Gives memory back.
    fn free(&self, address: u64);

    /// Runs a kernel on the computing queue, perhaps later.
    ///
    /// # Errors
    /// What failed.
    fn launch(&self, launch: Launch<'_>) -> Result<(), String>;

    /// Copies bytes to the card on the computing queue. They may be changed when it returns.
    ///
    /// # Errors
    /// What failed.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String>;

    /// Sets bytes of the card to one value on the computing queue, perhaps later.
    ///
    /// # Errors
    /// What failed.
    fn fill(&self, address: u64, bytes: u64, value: u8) -> Result<(), String>;

    /// Copies bytes from the card on the computing queue, and waits for them.
    ///
    /// # Errors
    /// What failed, now or since the last wait.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), String>;

    /// Waits for everything that was asked of any queue so far.
    ///
    /// # Errors
    /// What failed since the last wait.
    fn finish(&self) -> Result<(), String>;

    /// Memory of the host that the card copies from and to by itself: initialised, more than no
    /// bytes of it, aligned to 64.
    ///
    /// # Errors
    /// Why there is none.
    fn pin(&self, bytes: usize) -> Result<NonNull<u8>, String>;

    /// Gives pinned memory back.
    ///
    /// # Safety
    /// It is from [`Driver::pin`] with as many `bytes`, and nobody uses it any more, no copy either.
    unsafe fn unpin(&self, first: NonNull<u8>, bytes: usize);

    /// Copies bytes to the card on the uploading queue, perhaps later.
    ///
    /// # Errors
    /// What failed.
    ///
    /// # Safety
    /// `from` lies in pinned memory, as do the `bytes` behind it; nobody writes them before an event
    /// is passed that was recorded afterwards.
    unsafe fn begin_write(
        &self,
        address: u64,
        from: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), String>;

    /// Copies bytes from the card on the downloading queue, perhaps later.
    ///
    /// # Errors
    /// What failed.
    ///
    /// # Safety
    /// `to` lies in pinned memory, as do the `bytes` behind it; nobody uses them before an event is
    /// passed that was recorded afterwards.
    unsafe fn begin_read(&self, address: u64, to: NonNull<u8>, bytes: usize) -> Result<(), String>;

    /// The point behind everything that was asked of a queue so far.
    ///
    /// # Errors
    /// What failed.
    fn record(&self, queue: Queue) -> Result<Event, String>;

    /// Holds back what a queue is asked for from now on until an event is passed.
    ///
    /// # Errors
    /// What failed.
    fn hold_back(&self, queue: Queue, event: Event) -> Result<(), String>;

    /// Whether an event is passed.
    ///
    /// # Errors
    /// What failed before it.
    fn is_passed(&self, event: Event) -> Result<bool, String>;

    /// Waits until an event is passed.
    ///
    /// # Errors
    /// What failed before it.
    fn wait_for(&self, event: Event) -> Result<(), String>;

    /// The event is not asked for any more. Queues that it holds back stay so.
    fn forget(&self, event: Event);
}
