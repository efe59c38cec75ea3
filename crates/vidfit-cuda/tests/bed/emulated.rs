//! The emulated card: `emulation/main.cpp` in a process of its own, which shares the card's memory.

use super::machine::compiled;
use memmap2::MmapMut;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use vidfit_cuda::{Driver, Event, Launch, Queue, Speed};

/// Where the card's memory begins (`BASE` in `emulation/main.cpp`).
const BASE: u64 = 0x2000_0000_0000;
const MEMORY_BYTES: u64 = 64 << 20;

/// A card on the CPU.
pub struct Emulated {
    kind: Kind,
    inner: Mutex<Inner>,
}

/// What an emulated card is like.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// As `__CUDA_ARCH__` has it: 800, or 750, whose source differs.
    pub architecture: u32,
    /// How tensor cores add: `exact`, or `truncate8` (`emulation/emulation.hpp`).
    pub rounding: &'static str,
    /// Orders of threads and blocks that every kernel is run in, which must agree. In one order alone, what
    /// is accessed is not checked either.
    pub orders: u64,
}

impl Kind {
    /// The common architecture, with every check.
    pub const SM_80: Kind = Kind { architecture: 800, rounding: "exact", orders: 3 };
}

struct Inner {
    process: Child,
    memory: MmapMut,
    /// First byte and length of what is allocated.
    allocated: BTreeMap<u64, u64>,
    _file: tempfile::NamedTempFile,
}

impl Emulated {
    /// A card of this kind.
    pub fn new(kind: Kind) -> Emulated {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MEMORY_BYTES).unwrap();
        // SAFETY: nobody else knows the file but the process below, which writes it only while
        // this one waits for its answer.
        let memory = unsafe { MmapMut::map_mut(file.as_file()) }.unwrap();
        let process = Command::new(program(kind))
            .arg(file.path())
            .arg(MEMORY_BYTES.to_string())
            .arg(kind.rounding)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let inner = Inner { process, memory, allocated: BTreeMap::new(), _file: file };
        Emulated { kind, inner: Mutex::new(inner) }
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
        self.kind.architecture
    }

    fn speed(&self) -> Speed {
        // Nothing that it is tested with is too much for one launch.
        Speed { tensor: 1e12, f32: 1e12 }
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
        for seed in 0..self.kind.orders {
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

/// The emulation of an architecture: with a look at every access, or fast.
fn program(kind: Kind) -> &'static Path {
    type Programs = Mutex<BTreeMap<(u32, bool), &'static Path>>;
    static PROGRAMS: Programs = Mutex::new(BTreeMap::new());
    let (architecture, is_checked) = (kind.architecture, kind.orders > 1);
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    programs.entry((architecture, is_checked)).or_insert_with(|| {
        let define = format!("-D__CUDA_ARCH__={architecture}");
        let (flags, name): (&[&str], _) = match is_checked {
            true => {
                (&["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"], "")
            }
            false => (&["-O2"], "-fast"),
        };
        let name = format!("emulation-{architecture}{name}");
        Box::leak(compiled("main.cpp", &name, &[flags, &[&define]].concat()).into_boxed_path())
    })
}
