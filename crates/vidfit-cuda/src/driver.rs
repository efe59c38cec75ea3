//! What the device asks of a card.

use std::ops::Range;

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

/// A card, or what stands for one. Work is done in the order in which it is asked for.
pub trait Driver: Send + Sync {
    /// What it is called in messages, such as `cuda:0`.
    fn name(&self) -> &str;

    /// The architecture whose kernels it runs, as `__CUDA_ARCH__` has it: some want less shared memory
    /// before sm_80.
    fn architecture(&self) -> u32 {
        800
    }

    /// Bytes that could be allocated now.
    fn free_bytes(&self) -> u64;

    /// Memory of so many bytes, more than none; its address is a multiple of 256.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn allocate(&self, bytes: u64) -> Result<u64, String>;

    /// Gives memory back.
    fn free(&self, address: u64);

    /// Runs a kernel, perhaps later.
    ///
    /// # Errors
    /// What failed, in words.
    fn launch(&self, launch: Launch<'_>) -> Result<(), String>;

    /// Copies bytes to the card, after what was asked for before.
    ///
    /// # Errors
    /// What failed, in words.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String>;

    /// Copies bytes from the card, after what was asked for before, and waits for them.
    ///
    /// # Errors
    /// What failed, now or since the last wait, in words.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), String>;

    /// Waits for everything asked for so far.
    ///
    /// # Errors
    /// What failed since the last wait, in words.
    fn finish(&self) -> Result<(), String>;
}
