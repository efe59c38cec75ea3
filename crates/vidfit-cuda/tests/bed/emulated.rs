//! The emulated card: `emulation/main.cpp` in a process of its own, which shares the card's memory.

use super::machine::compiled;
use memmap2::MmapMut;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock};
use vidfit_cuda::{Driver, Event, Launch, Queue};

/// Where the card's memory begins (`BASE` in `emulation/main.cpp`).
const BASE: u64 = 0x2000_0000_0000;
const MEMORY_BYTES: u64 = 64 << 20;

/// Architectures, as `__CUDA_ARCH__`, whose sources differ: the common one, and the oldest.
pub const ARCHITECTURES: [u32; 2] = [800, 750];

/// A card on the CPU.
pub struct Emulated {
    architecture: u32,
    orders: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    process: Child,
    memory: MmapMut,
    /// First byte and length of what is allocated.
    allocated: BTreeMap<u64, u64>,
    _file: tempfile::NamedTempFile,
}

impl Emulated {
    /// A card that runs every kernel in so many orders, and holds the results against each other.
    pub fn new(orders: u64) -> Emulated {
        Emulated::of(ARCHITECTURES[0], orders)
    }

    /// The same for the source of another architecture.
    pub fn of(architecture: u32, orders: u64) -> Emulated {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MEMORY_BYTES).unwrap();
        // SAFETY: nobody else knows the file but the process below, which writes it only while
        // this one waits for its answer.
        let memory = unsafe { MmapMut::map_mut(file.as_file()) }.unwrap();
        let process = Command::new(program(architecture))
            .arg(file.path())
            .arg(MEMORY_BYTES.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let inner = Inner { process, memory, allocated: BTreeMap::new(), _file: file };
        Emulated { architecture, orders, inner: Mutex::new(inner) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl Inner {
    fn bytes(&mut self, address: u64, length: usize) -> &mut [u8] {
        let first = (address - BASE) as usize;
        &mut self.memory[first..first + length]
    }

    fn launch(&mut self, launch: &Launch<'_>, seed: u64) -> Result<(), String> {
        let mut message = Vec::new();
        let counted = |message: &mut Vec<u8>, bytes: &[u8]| {
            message.extend((bytes.len() as u32).to_ne_bytes());
            message.extend(bytes);
        };
        counted(&mut message, launch.kernel.as_bytes());
        for number in launch.grid.into_iter().chain(launch.block).chain([launch.shared_bytes]) {
            message.extend(number.to_ne_bytes());
        }
        message.extend(seed.to_ne_bytes());
        counted(&mut message, launch.arguments);
        message.extend((launch.touched.len() as u32).to_ne_bytes());
        for range in launch.touched {
            message.extend(range.start.to_ne_bytes());
            message.extend((range.end - range.start).to_ne_bytes());
        }
        let sent = self.process.stdin.as_mut().unwrap().write_all(&message);
        let mut done = [1];
        let answered =
            sent.and_then(|()| self.process.stdout.as_mut().unwrap().read_exact(&mut done));
        match answered {
            Ok(()) => Ok(()),
            Err(_) => {
                let mut said = String::new();
                let _ = self.process.stderr.as_mut().unwrap().read_to_string(&mut said);
                Err(format!("the emulation ended:\n{said}"))
            }
        }
    }
}

impl Driver for Emulated {
    fn name(&self) -> &str {
        "emulated"
    }

    fn architecture(&self) -> u32 {
        self.architecture
    }

    fn free_bytes(&self) -> u64 {
        MEMORY_BYTES - self.inner.lock().unwrap().allocated.values().sum::<u64>()
    }

    fn allocate(&self, bytes: u64) -> Result<u64, String> {
        let mut inner = self.inner.lock().unwrap();
        let first =
            inner.allocated.iter().map(|(first, length)| first + length).max().unwrap_or(BASE);
        let first = first.next_multiple_of(256);
        if first + bytes > BASE + MEMORY_BYTES {
            return Err(format!("{bytes} bytes are more than the emulated card has"));
        }
        inner.allocated.insert(first, bytes);
        Ok(first)
    }

    fn free(&self, address: u64) {
        self.inner.lock().unwrap().allocated.remove(&address);
    }

    fn launch(&self, launch: Launch<'_>) -> Result<(), String> {
        let mut inner = self.inner.lock().unwrap();
        let read = |inner: &mut Inner| -> Vec<Vec<u8>> {
            let ranges = launch.touched.iter();
            ranges.map(|r| inner.bytes(r.start, (r.end - r.start) as usize).to_vec()).collect()
        };
        let before = read(&mut inner);
        let mut first: Option<Vec<Vec<u8>>> = None;
        for seed in 0..self.orders {
            for (range, bytes) in launch.touched.iter().zip(&before) {
                inner.bytes(range.start, bytes.len()).copy_from_slice(bytes);
            }
            inner.launch(&launch, seed)?;
            let after = read(&mut inner);
            match &first {
                None => first = Some(after),
                Some(first) if *first != after => {
                    return Err(format!(
                        "another order of threads (seed {seed}) has another result"
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.inner.lock().unwrap().bytes(address, bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    fn fill(&self, address: u64, bytes: u64, value: u8) -> Result<(), String> {
        self.inner.lock().unwrap().bytes(address, bytes as usize).fill(value);
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), String> {
        bytes.copy_from_slice(self.inner.lock().unwrap().bytes(address, bytes.len()));
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        Ok(())
    }

    fn pin(&self, bytes: usize) -> Result<NonNull<u8>, String> {
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(pinned(bytes)) }).ok_or("no memory".into())
    }

    unsafe fn unpin(&self, first: NonNull<u8>, bytes: usize) {
        // SAFETY: from `pin`, with this layout.
        unsafe { std::alloc::dealloc(first.as_ptr(), pinned(bytes)) }
    }

    // Every copy is done when it is begun, so that there is nothing that an event could be before.

    unsafe fn begin_write(
        &self,
        address: u64,
        from: NonNull<u8>,
        bytes: usize,
    ) -> Result<(), String> {
        // SAFETY: as the caller says.
        self.write(address, unsafe { std::slice::from_raw_parts(from.as_ptr(), bytes) })
    }

    unsafe fn begin_read(&self, address: u64, to: NonNull<u8>, bytes: usize) -> Result<(), String> {
        // SAFETY: as the caller says.
        self.read(address, unsafe { std::slice::from_raw_parts_mut(to.as_ptr(), bytes) })
    }

    fn record(&self, _: Queue) -> Result<Event, String> {
        Ok(Event(0))
    }

    fn hold_back(&self, _: Queue, _: Event) -> Result<(), String> {
        Ok(())
    }

    fn is_passed(&self, _: Event) -> Result<bool, String> {
        Ok(true)
    }

    fn wait_for(&self, _: Event) -> Result<(), String> {
        Ok(())
    }

    fn forget(&self, _: Event) {}
}

fn pinned(bytes: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(bytes, 64).unwrap()
}

/// The emulation of an architecture.
fn program(architecture: u32) -> &'static Path {
    static PROGRAMS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    let number = ARCHITECTURES.iter().position(|&a| a == architecture).unwrap();
    PROGRAMS[number].get_or_init(|| {
        let define = format!("-D__CUDA_ARCH__={architecture}");
        let checks = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];
        let flags = [&checks[..], &[&define]].concat();
        compiled("main.cpp", &format!("emulation-{architecture}"), &flags)
    })
}
