//! What of the driver's API is used, as `cuda.h` has it: its types, its numbers, its functions.
//!
//! All functions are looked up when the library is loaded, so that a library which lacks one is an error and
//! not a surprise; and what they return is a number, since newer drivers have errors that nobody here has
//! heard of.

#![allow(non_snake_case, reason = "as the header has them")]

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::sync::OnceLock;

pub(super) type CUdevice = c_int;
pub(super) type CUdeviceptr = u64;
pub(super) type CUcontext = *mut c_void;
pub(super) type CUstream = *mut c_void;
pub(super) type CUevent = *mut c_void;
pub(super) type CUmodule = *mut c_void;
pub(super) type CUfunction = *mut c_void;

/// `CUresult`.
pub(super) type Code = c_uint;

// CUdevice_attribute
pub(super) const DEVICE_CLOCK_RATE: c_int = 13;
pub(super) const DEVICE_MULTIPROCESSOR_COUNT: c_int = 16;
pub(super) const DEVICE_COMPUTE_CAPABILITY_MAJOR: c_int = 75;
pub(super) const DEVICE_COMPUTE_CAPABILITY_MINOR: c_int = 76;
pub(super) const DEVICE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: c_int = 81;
pub(super) const DEVICE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: c_int = 97;
pub(super) const DEVICE_RESERVED_SHARED_MEMORY_PER_BLOCK: c_int = 111;
// CUfunction_attribute
pub(super) const FUNC_SHARED_SIZE_BYTES: c_int = 1;
pub(super) const FUNC_LOCAL_SIZE_BYTES: c_int = 3;
pub(super) const FUNC_NUM_REGS: c_int = 4;
pub(super) const FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;
pub(super) const FUNC_PREFERRED_SHARED_MEMORY_CARVEOUT: c_int = 9;
// CUjit_option
pub(super) const JIT_ERROR_LOG_BUFFER: c_int = 5;
pub(super) const JIT_ERROR_LOG_BUFFER_SIZE_BYTES: c_int = 6;
// CUstream_flags, CUevent_flags
pub(super) const STREAM_NON_BLOCKING: c_uint = 1;
pub(super) const EVENT_BLOCKING_SYNC: c_uint = 1;
pub(super) const EVENT_DISABLE_TIMING: c_uint = 2;
// The list of a launch's further parameters.
pub(super) const LAUNCH_PARAM_END: usize = 0;
pub(super) const LAUNCH_PARAM_BUFFER_POINTER: usize = 1;
pub(super) const LAUNCH_PARAM_BUFFER_SIZE: usize = 2;

macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        struct Functions {
            $($name: unsafe extern "system" fn($($type),*) -> Code,)*
        }

        impl Functions {
            /// Those of a library, which must stay loaded.
            fn of(library: &libloading::Library) -> Result<Functions, String> {
                Ok(Functions { $($name: {
                    // SAFETY: the header declares it like this.
                    let found = unsafe { library.get(stringify!($name)) };
                    *found.map_err(|_| concat!("it has no ", stringify!($name)))?
                },)* })
            }
        }

        $(
            /// See NVIDIA's documentation of the driver API.
            ///
            /// # Safety
            /// As that says. The library is loaded: see [`load`].
            #[allow(clippy::too_many_arguments, reason = "as the header has it")]
            pub(super) unsafe fn $name($($argument: $type),*) -> Code {
                let functions = LOADED.get().and_then(|loaded| loaded.as_ref().ok());
                let functions = functions.expect("the driver's library is loaded before it is used");
                // SAFETY: as the caller says.
                unsafe { (functions.$name)($($argument),*) }
            }
        )*
    };
}

functions! {
    cuInit(flags: c_uint);
    cuDriverGetVersion(version: *mut c_int);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
    cuDeviceGetName(name: *mut c_char, length: c_int, device: CUdevice);
    cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: CUdevice);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: CUdevice);
    cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
    cuDevicePrimaryCtxRelease_v2(device: CUdevice);
    cuCtxSetCurrent(context: CUcontext);
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
    cuMemFree_v2(address: CUdeviceptr);
    cuMemHostAlloc(first: *mut *mut c_void, bytes: usize, flags: c_uint);
    cuMemFreeHost(first: *mut c_void);
    cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream);
    cuMemsetD8Async(to: CUdeviceptr, value: c_uchar, bytes: usize, stream: CUstream);
    cuStreamCreate(stream: *mut CUstream, flags: c_uint);
    cuStreamDestroy_v2(stream: CUstream);
    cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint);
    cuEventCreate(event: *mut CUevent, flags: c_uint);
    cuEventDestroy_v2(event: CUevent);
    cuEventRecord(event: CUevent, stream: CUstream);
    cuEventQuery(event: CUevent);
    cuEventSynchronize(event: CUevent);
    cuModuleLoadDataEx(
        module: *mut CUmodule, image: *const c_void, count: c_uint, options: *mut c_int,
        values: *mut *mut c_void
    );
    cuModuleUnload(module: CUmodule);
    cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);
    cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: CUfunction);
    cuFuncSetAttribute(function: CUfunction, attribute: c_int, value: c_int);
    cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int, function: CUfunction, threads: c_int, shared_bytes: usize
    );
    cuLaunchKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint,
        block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: CUstream,
        parameters: *mut *mut c_void, extra: *mut *mut c_void
    );
}

static LOADED: OnceLock<Result<Functions, Problem>> = OnceLock::new();

/// Why there are no functions.
#[derive(Clone, Debug)]
pub(super) enum Problem {
    /// No library of these names, with what the loader said of the first.
    NotLoaded(String),
    /// It is not the driver's.
    Incomplete(String),
}

/// Loads the first of these libraries that there is, once, for as long as the process lives.
pub(super) fn load(names: &[&str]) -> Result<(), Problem> {
    match LOADED.get_or_init(|| load_first(names)) {
        Ok(_) => Ok(()),
        Err(problem) => Err(problem.clone()),
    }
}

fn load_first(names: &[&str]) -> Result<Functions, Problem> {
    let mut first = None;
    for name in names {
        // SAFETY: loading runs the library's own beginning, which is meant for that.
        match unsafe { libloading::Library::new(*name) } {
            Ok(library) => {
                let functions = Functions::of(&library).map_err(Problem::Incomplete);
                // Its threads, and what it does at the end of the process, need its code.
                std::mem::forget(library);
                return functions;
            }
            Err(error) => {
                // What the loader says is behind what the crate does.
                let said = std::error::Error::source(&error).map(ToString::to_string);
                first.get_or_insert(said.unwrap_or_else(|| error.to_string()));
            }
        }
    }
    Err(Problem::NotLoaded(first.unwrap_or_default()))
}
