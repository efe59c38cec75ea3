//! The driver's library: loaded when the program runs, if it is there.

use super::sys::{self, Problem};
use super::words::{OLDEST_CAPABILITY, OLDEST_CUDA, OLDEST_DRIVER, check, dotted};
use crate::speed::Speed;
use std::ffi::{CStr, c_char, c_int};
use std::path::PathBuf;

/// What the library is called.
const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// What else it may be called.
const OTHER_NAME: &str = if cfg!(windows) { "nvcuda" } else { "libcuda.so" };

/// The most bytes of a card's name.
const LONGEST_NAME: usize = 256;

/// A card, as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number.
    pub index: u32,
    /// Such as `NVIDIA GeForce RTX 4060`.
    pub name: String,
    /// Its compute capability, such as 8.9.
    pub capability: (u32, u32),
    /// All of its memory, in bytes.
    pub memory_bytes: u64,
}

impl Card {
    /// One of which the driver tells nothing.
    pub(super) fn unknown(index: u32) -> Card {
        Card { index, name: "a card that fails".into(), capability: (0, 0), memory_bytes: 0 }
    }

    /// Why vidfit cannot use it, if it cannot.
    pub fn problem(&self) -> Option<String> {
        (self.capability < OLDEST_CAPABILITY).then(|| {
            format!(
                "{} has compute capability {}; vidfit needs {} (Turing: GeForce RTX 20 and GTX 16, \
                 T4) or newer",
                self.name,
                dotted(self.capability),
                dotted(OLDEST_CAPABILITY)
            )
        })
    }
}

/// Loads the library, or says why it cannot be.
///
/// Everything else of the driver must only be called after this.
pub(super) fn load() -> Result<(), String> {
    let why = match sys::load(&[LIBRARY, OTHER_NAME]) {
        Ok(()) => return Ok(()),
        Err(Problem::NotLoaded(why)) => why,
        Err(Problem::Incomplete(what)) => {
            let path =
                path_of("libcuda.so").map_or(LIBRARY.into(), |path| path.display().to_string());
            return Err(format!("{path} is not an NVIDIA driver's library: {what}"));
        }
    };
    // On Linux; elsewhere the loader's own words have to do.
    if why.starts_with(&format!("{LIBRARY}: cannot open")) && why.contains("No such file") {
        return Err(format!("there is no NVIDIA driver (its library {LIBRARY} was not found)"));
    }
    Err(format!("the NVIDIA driver's library {LIBRARY} cannot be loaded ({why})"))
}

/// Where a library lies that is loaded, by the beginning of its file's name, as far as the system tells.
pub(super) fn path_of(library: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.find('/').map(|first| &line[first..]));
    let mut path =
        path.filter(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(library)));
    path.next().map(PathBuf::from)
}

/// The CUDA that the driver is for.
pub(super) fn version() -> Result<(u32, u32), String> {
    let mut version = 0;
    // SAFETY: writes one number.
    check("asking for the driver's version", unsafe { sys::cuDriverGetVersion(&mut version) })?;
    let version = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

/// Why a driver for this CUDA is not enough, if it is not.
pub(super) fn problem_of(version: (u32, u32)) -> Option<String> {
    (version < OLDEST_CUDA).then(|| {
        format!(
            "the driver is for CUDA {}, and the kernels need {}; {OLDEST_DRIVER}",
            dotted(version),
            dotted(OLDEST_CUDA)
        )
    })
}

/// Starts the driver and counts its cards.
pub(super) fn count() -> Result<u32, String> {
    // SAFETY: no more than these calls ask for.
    unsafe {
        check("starting the driver", sys::cuInit(0))?;
        let mut count = 0;
        check("counting the cards", sys::cuDeviceGetCount(&mut count))?;
        Ok(count.unsigned_abs())
    }
}

/// A card that [`count`] counted.
pub(super) fn card(index: u32) -> Result<(sys::CUdevice, Card), String> {
    let mut device = 0;
    let mut name = [0 as c_char; LONGEST_NAME];
    let mut memory_bytes = 0;
    let number = c_int::try_from(index).map_err(|_| format!("there is no card {index}"))?;
    // SAFETY: each writes one value, the name at most its length, with a zero at the end.
    let name = unsafe {
        check("asking for the card", sys::cuDeviceGet(&mut device, number))?;
        let asked = sys::cuDeviceGetName(name.as_mut_ptr(), LONGEST_NAME as c_int, device);
        check("asking for the card's name", asked)?;
        let asked = sys::cuDeviceTotalMem_v2(&mut memory_bytes, device);
        check("asking for the card's memory", asked)?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    let major = attribute(device, sys::DEVICE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(device, sys::DEVICE_COMPUTE_CAPABILITY_MINOR)?;
    let memory_bytes = memory_bytes as u64;
    Ok((device, Card { index, name, capability: (major, minor), memory_bytes }))
}

/// How much a card computes, by its multiprocessors and its clock.
pub(super) fn speed(device: sys::CUdevice, card: &Card) -> Result<Speed, String> {
    let multiprocessors = attribute(device, sys::DEVICE_MULTIPROCESSOR_COUNT)?;
    let clock_khz = attribute(device, sys::DEVICE_CLOCK_RATE)?;
    Ok(Speed::of(&card.name, card.capability, multiprocessors, 1e3 * f64::from(clock_khz)))
}

/// One of the numbers that describe a card.
pub(super) fn attribute(device: sys::CUdevice, attribute: c_int) -> Result<u32, String> {
    let mut value = 0;
    // SAFETY: writes one number.
    let asked = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) };
    check("asking what the card can do", asked)?;
    Ok(value.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_is_refused_in_words() {
        let card = |capability| Card { index: 0, name: "P100".into(), capability, memory_bytes: 0 };
        let what = card((6, 0)).problem().unwrap();
        assert!(what.starts_with("P100 has compute capability 6.0; vidfit needs 7.5"), "{what}");
        assert_eq!(card((7, 5)).problem(), None);
        assert_eq!(card((12, 0)).problem(), None);
        assert_eq!(problem_of((12, 0)), None);
        let what = problem_of((11, 8)).unwrap();
        assert!(what.contains("CUDA 11.8") && what.contains("525.60.13"), "{what}");
    }
}
