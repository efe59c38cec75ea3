//! The kernels: compiled ahead to PTX, and by the driver for the card that is there.

use super::packing::{Packing, Room};
use super::sys;
use super::words::check;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::ptr::null_mut;

/// PTX by the least compute capability that it is for, newest first. A newer card's driver compiles
/// it, too. Made by `kernels/make_ptx.py`.
const PTX: [((u32, u32), &str); 2] =
    [((8, 0), include_str!("../../ptx/sm_80.ptx")), ((7, 5), include_str!("../../ptx/sm_75.ptx"))];

/// How much the driver's compiler may say.
const LOG_BYTES: usize = 16 << 10;

/// A kernel of the module.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    function: sys::CUfunction,
    /// Registers of a thread.
    pub registers: u32,
    /// What a thread has in memory that has no room in registers, in bytes.
    pub local_bytes: u32,
    /// The most shared memory that a launch may ask for, in bytes.
    pub most_shared_bytes: u32,
    /// Its structure of arguments, in bytes.
    pub argument_bytes: usize,
    /// The most threads of a block.
    pub most_threads: u32,
    /// How many of its blocks a multiprocessor has at a time, where that is meant to be more than one.
    pub packing: Option<Packing>,
}

/// All kernels, loaded.
pub(super) struct Module {
    handle: sys::CUmodule,
    kernels: HashMap<String, Kernel>,
    architecture: u32,
    /// The driver's to write to until the module is unloaded.
    _log: Box<Log>,
}

/// What the driver's compiler says, and the options that tell it where.
///
/// A driver that loads modules lazily compiles a kernel when it is first used, and may have something to say
/// then. So all of this stays where it is, and is read only when loading has failed.
struct Log {
    text: Vec<u8>,
    options: [c_int; 2],
    values: [*mut c_void; 2],
}

// SAFETY: the driver's handles may be used by all threads.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads the kernels into the context that this thread has entered, as it must have when this is
    /// dropped.
    pub fn new(device: sys::CUdevice, capability: (u32, u32)) -> Result<Module, String> {
        let ((major, minor), ptx) = PTX
            .into_iter()
            .find(|(least, _)| *least <= capability)
            .ok_or("there are no kernels for a card this old")?;
        let architecture = major * 100 + minor * 10;
        let (handle, log) = load(ptx)?;
        let mut module = Module { handle, kernels: HashMap::new(), architecture, _log: log };
        let room = Room::of(device)?;
        for entry in entries(ptx) {
            let kernel = kernel(module.handle, &entry, (architecture, &room))
                .map_err(|what| format!("the kernel {}: {what}", entry.name))?;
            module.kernels.insert(entry.name.to_owned(), kernel);
        }
        Ok(module)
    }

    pub fn kernels(&self) -> &HashMap<String, Kernel> {
        &self.kernels
    }

    /// Has every kernel run once, with nothing to do: what the driver sets up at a kernel's first run is
    /// there afterwards.
    pub fn warm_up(&self, stream: sys::CUstream) -> Result<(), String> {
        let nothing = [0; MOST_ARGUMENT_BYTES];
        for (name, kernel) in &self.kernels {
            let arguments = &nothing[..kernel.argument_bytes];
            kernel
                .run(([1; 3], [kernel.most_threads, 1, 1]), 0, arguments, stream)
                .map_err(|what| format!("{name}: {what}"))?;
        }
        Ok(())
    }

    /// What the kernels were compiled for, as `__CUDA_ARCH__` had it.
    pub fn architecture(&self) -> u32 {
        self.architecture
    }

    /// Asks for a run of a kernel.
    pub fn launch(&self, launch: crate::Launch<'_>, stream: sys::CUstream) -> Result<(), String> {
        let kernel = self.kernels.get(launch.kernel).ok_or("there is no such kernel")?;
        if launch.shared_bytes > kernel.most_shared_bytes {
            return Err(format!(
                "it needs {} bytes of shared memory, and the card has {}",
                launch.shared_bytes, kernel.most_shared_bytes
            ));
        }
        let is_as_packed =
            |packing: Packing| packing.launch() == (launch.block[0], launch.shared_bytes);
        debug_assert!(kernel.packing.is_none_or(is_as_packed), "{launch:?} of {kernel:?}");
        kernel.run((launch.grid, launch.block), launch.shared_bytes, launch.arguments, stream)
    }
}

impl Kernel {
    /// Asks for a run of blocks of threads.
    fn run(
        &self,
        ([gx, gy, gz], [bx, by, bz]): ([u32; 3], [u32; 3]),
        shared_bytes: u32,
        arguments: &[u8],
        stream: sys::CUstream,
    ) -> Result<(), String> {
        let mut bytes = arguments.len();
        let mut extra = [
            sys::LAUNCH_PARAM_BUFFER_POINTER as *mut c_void,
            arguments.as_ptr().cast_mut().cast(),
            sys::LAUNCH_PARAM_BUFFER_SIZE as *mut c_void,
            (&raw mut bytes).cast(),
            sys::LAUNCH_PARAM_END as *mut c_void,
        ];
        // SAFETY: the driver reads the list and the arguments before it returns, and holds their size
        // against the kernel's. What the kernel itself does is the device's affair.
        let launched = unsafe {
            sys::cuLaunchKernel(
                self.function,
                gx,
                gy,
                gz,
                bx,
                by,
                bz,
                shared_bytes,
                stream,
                null_mut(),
                extra.as_mut_ptr(),
            )
        };
        check("launching it", launched)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded once, and none of its kernels is used again. The log goes after it.
        let _ = unsafe { sys::cuModuleUnload(self.handle) };
    }
}

/// A kernel, as PTX declares it.
#[derive(Debug, PartialEq)]
struct Entry<'a> {
    name: &'a str,
    argument_bytes: usize,
    most_threads: u32,
}

/// The most that any kernel takes, in bytes, as CUDA allows it.
const MOST_ARGUMENT_BYTES: usize = 4096;

/// The kernels in PTX: `.visible .entry NAME( .param .align 8 .b8 NAME_param_0[BYTES] ) .maxntid THREADS, …`
fn entries(ptx: &str) -> impl Iterator<Item = Entry<'_>> {
    let between = |text: &'_ str, before: &str, after: char| -> Option<u32> {
        text.split(before).nth(1)?.split(after).next()?.trim().parse().ok()
    };
    ptx.split(".visible .entry ").skip(1).filter_map(move |text| {
        let head = text.split('{').next()?;
        Some(Entry {
            name: head.split('(').next()?,
            argument_bytes: between(head, "[", ']')? as usize,
            most_threads: between(head, ".maxntid", ',')?,
        })
    })
}

/// Has the driver compile PTX. What its compiler says goes into the error.
fn load(ptx: &str) -> Result<(sys::CUmodule, Box<Log>), String> {
    let image = CString::new(ptx).map_err(|_| "the PTX has a zero in its midst")?;
    let mut log = Log::new();
    let mut handle = null_mut();
    // SAFETY: two options with a value each; the log is as long as is said, and stays as long as the module;
    // the image ends with a zero.
    let loaded = unsafe {
        sys::cuModuleLoadDataEx(
            &mut handle,
            image.as_ptr().cast(),
            log.options.len() as u32,
            log.options.as_mut_ptr(),
            log.values.as_mut_ptr(),
        )
    };
    check("compiling the kernels for the card", loaded).map_err(|what| {
        let said = String::from_utf8_lossy(&log.text);
        match said.trim_matches('\0').trim() {
            "" => what,
            said => format!("{what}: {said}"),
        }
    })?;
    Ok((handle, log))
}

impl Log {
    fn new() -> Box<Log> {
        let mut log = Box::new(Log {
            text: vec![0; LOG_BYTES],
            options: [sys::JIT_ERROR_LOG_BUFFER, sys::JIT_ERROR_LOG_BUFFER_SIZE_BYTES],
            values: [null_mut(); 2],
        });
        // The second is the number itself in the place of a pointer.
        log.values = [log.text.as_mut_ptr().cast(), LOG_BYTES as *mut c_void];
        log
    }
}

/// Looks a kernel up, which loads it where modules are loaded lazily, and lets it use all of the shared
/// memory that there is.
fn kernel(
    module: sys::CUmodule,
    entry: &Entry<'_>,
    (architecture, room): (u32, &Room),
) -> Result<Kernel, String> {
    let mut function = null_mut();
    let symbol = CString::new(entry.name).map_err(|_| "a name with a zero")?;
    // SAFETY: writes the handle; the name ends with a zero.
    let found = unsafe { sys::cuModuleGetFunction(&mut function, module, symbol.as_ptr()) };
    check("looking it up", found)?;
    let ask = |attribute| {
        let mut value: c_int = 0;
        // SAFETY: writes one number.
        let asked = unsafe { sys::cuFuncGetAttribute(&mut value, attribute, function) };
        check("asking what it needs", asked).map(|()| value.unsigned_abs())
    };
    let own = ask(sys::FUNC_SHARED_SIZE_BYTES)?;
    let most_shared_bytes = room.of_a_block.saturating_sub(own);
    let most = sys::FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is there.
    let set = unsafe { sys::cuFuncSetAttribute(function, most, most_shared_bytes as c_int) };
    check("letting it use shared memory", set)?;
    Ok(Kernel {
        function,
        registers: ask(sys::FUNC_NUM_REGS)?,
        local_bytes: ask(sys::FUNC_LOCAL_SIZE_BYTES)?,
        most_shared_bytes,
        argument_bytes: entry.argument_bytes,
        most_threads: entry.most_threads,
        packing: Packing::of(entry.name, architecture, entry.most_threads)
            .map(|packing| packing.ask_for(function, room))
            .transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_the_same_kernels_but_for_bf16_on_tensor_cores() {
        let all: Vec<Vec<Entry<'_>>> = PTX.iter().map(|(_, ptx)| entries(ptx).collect()).collect();
        for ((_, ptx), entries) in PTX.iter().zip(&all) {
            assert_eq!(entries.len(), ptx.matches(".entry ").count());
            let sane = |entry: &Entry<'_>| {
                (8..=MOST_ARGUMENT_BYTES).contains(&entry.argument_bytes)
                    && (32..=1024).contains(&entry.most_threads)
            };
            assert!(entries.iter().all(sane), "{entries:#?}");
        }
        let has = |name: &str| all[0].iter().any(|entry| entry.name == name);
        assert!(has("cast") && has("linear_bf16"), "{:#?}", all[0]);
        let both = all[0].iter().filter(|entry| !entry.name.contains("bf16"));
        assert!(both.eq(&all[1]), "{:#?}", all[1]);
    }

    #[test]
    fn what_is_packed_is_a_kernel() {
        let entries: Vec<Entry<'_>> = entries(PTX[0].1).collect();
        let packed =
            |entry: &&Entry<'_>| Packing::of(entry.name, 800, entry.most_threads).is_some();
        assert_eq!(entries.iter().filter(packed).count(), 9);
        // Also those that were compiled for it.
        let compiled =
            PTX[0].1.split(".visible .entry ").filter(|text| text.contains(".minnctapersm 2"));
        for text in compiled {
            let name = text.split('(').next().unwrap();
            assert!(Packing::of(name, 800, 256).is_some(), "{name}");
        }
    }
}
