//! What the device asks of a card.

use crate::speed::{Speed, Unit};
use std::ops::Range;
use std::ptr::NonNull;
use vidfit_tensor::{Activation, DType};

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
    /// Multiply-adds of products, as far as there are any that count, and what makes them.
    pub work: (u64, Unit),
    /// The addresses that it may read or write.
    pub touched: &'a [Range<u64>],
}

/// Operands of a [`Product`] begin at multiples of so many bytes, and so do their rows.
pub(crate) const PRODUCT_ALIGNMENT: u64 = 16;

/// A matrix product of operands of one type, `activation(x · weightᵀ + bias)`, all at addresses of the
/// card and aligned to 16 bytes in every row.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Of all operands: f16 or bf16.
    pub dtype: DType,
    /// `[rows, depth]`.
    pub x: u64,
    /// `[columns, depth]`.
    pub weight: u64,
    /// `[columns]`.
    pub bias: Option<u64>,
    /// `[rows, columns]`, apart from all others.
    pub target: u64,
    /// At least 1.
    pub rows: u64,
    /// At least 1.
    pub columns: u64,
    /// At least 1.
    pub depth: u64,
    /// Applied to a sum in f32, before it is rounded.
    pub activation: Activation,
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

    /// How much it computes in a second: by it, work is parted into launches that end soon.
    fn speed(&self) -> Speed;

    /// Bytes that could be allocated now.
    fn free_bytes(&self) -> u64;

    /// Bytes that this process has taken: see [`vidfit_tensor::Device::taken_bytes`].
    fn taken_bytes(&self) -> Option<u64> {
        None
    }

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

    /// Has a library of the card's maker make a product on the computing queue, perhaps later; `None` if
    /// none does, so that kernels have to.
    ///
    /// Whether one does depends on the type, the activation and whether there is a bias, and on nothing
    /// else: not on the numbers of rows and columns, into which a model's products are cut as memory has
    /// it. An element has the same bits wherever in a product it is, and however large that is.
    ///
    /// # Errors
    /// What failed.
    fn product(&self, _product: &Product) -> Option<Result<(), String>> {
        None
    }

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
