//! What NVML says.

use super::{GpuProcess, NoGpus, Report, Source};
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};

/// The library that the driver brings.
const LIBRARY: &str = if cfg!(windows) { "nvml.dll" } else { "libnvidia-ml.so.1" };

/// The most characters of a program's path that are asked for.
const LONGEST_NAME: usize = 256;

/// The driver of this machine.
pub(super) struct Driver {
    nvml: Nvml,
}

impl Driver {
    /// Loads the library, if there is one.
    pub(super) fn load() -> Result<Driver, NoGpus> {
        match Nvml::builder().lib_path(LIBRARY.as_ref()).init() {
            Ok(nvml) => Ok(Driver { nvml }),
            // The loader's own words are a path or two too many for a machine that has no card.
            Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => {
                Err(NoGpus::NoLibrary { library: LIBRARY })
            }
            Err(error) => Err(NoGpus::Refused { reason: error.to_string() }),
        }
    }

    fn processes(&self, device: &Device) -> Vec<GpuProcess> {
        let compute = device.running_compute_processes().unwrap_or_default();
        let graphics = device.running_graphics_processes().unwrap_or_default();
        let process = |info: &ProcessInfo| GpuProcess {
            pid: info.pid,
            name: self
                .nvml
                .sys_process_name(info.pid, LONGEST_NAME)
                .ok()
                .filter(|name| !name.is_empty()),
            bytes: match info.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            },
        };
        compute.iter().chain(&graphics).map(process).collect()
    }
}

impl Source for Driver {
    fn count(&self) -> Result<u32, String> {
        self.nvml.device_count().map_err(|error| error.to_string())
    }

    fn report(&self, index: u32) -> Result<Report, String> {
        let device = self.nvml.device_by_index(index).map_err(|error| error.to_string())?;
        let memory = device.memory_info().map_err(|error| format!("its memory: {error}"))?;
        Ok(Report {
            name: device.name().unwrap_or_else(|_| "NVIDIA card".into()),
            total_bytes: memory.total,
            free_bytes: memory.free,
            utilisation_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
            temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
            processes: self.processes(&device),
        })
    }
}
