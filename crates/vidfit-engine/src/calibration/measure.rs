//! Times the cases and fits the formula.

use super::cases::{self, Case};
use super::fit::{Sample, fit};
use crate::machine::Stopwatch;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vidfit_tensor::rates::{Class, CopyCost};
use vidfit_tensor::{
    Arena, DType, Device, DryDevice, Error, HostSource, Layout, Rates, Tensor, solve,
};

/// Rounds through all cases. What disturbs a machine for a second or two then meets each case in
/// one round at most.
pub const ROUNDS: usize = 8;
/// How long a case is repeated in each round.
const ROUND_TIME: Duration = Duration::from_millis(20);
/// The most repeats of a case in a round.
const REPEATS: usize = 6;
/// What a calibration has found.
pub struct Measured {
    /// The rates.
    pub rates: Rates,
    /// How well the formula tells what was measured.
    pub fits: Vec<ClassFit>,
}

/// How well the formula tells the measured times of a class.
#[derive(Clone, Debug, Serialize)]
pub struct ClassFit {
    /// The class.
    pub class: Class,
    /// The type.
    pub dtype: DType,
    /// For each case in turn: what it is, the measured seconds, and those of the formula.
    pub cases: Vec<(String, f64, f64)>,
}

/// Measures the rates of `device`, which computes in f32, bf16 and f16 on so many threads. Its arena
/// is reserved anew and given back. More `rounds` ([`ROUNDS`] are usual) are less disturbed.
/// `progress` is told the share that is done, from 0 to 1.
///
/// # Errors
/// [`Error::Device`] if the memory cannot be had (some 200 MB), or the device fails.
pub fn measure(
    device: &dyn Device,
    threads: usize,
    rounds: usize,
    progress: &mut dyn FnMut(f64),
) -> Result<Measured, Error> {
    let cases = cases::all();
    let bed = Bed::new(device, threads, &cases)?;
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        for (index, (case, times)) in cases.iter().zip(&mut times).enumerate() {
            bed.time(case, times)?;
            progress((round * cases.len() + index + 1) as f64 / (rounds * cases.len()) as f64);
        }
    }
    let seconds: Vec<f64> = times.iter_mut().map(|times| typical(times)).collect();

    let mut rates = Rates {
        // What reads host memory in place copies by itself; see `Device::begin_upload` there.
        copies_at_once: device.profile().reads_host_memory,
        upload_queue: bed.upload_queue()?,
        download_queue: bed.download_queue()?,
        ..Rates::default()
    };
    device.release();
    let mut fits = Vec::new();
    for class in Class::ALL {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let of_class: Vec<(String, Sample)> = cases
                .iter()
                .zip(&seconds)
                .filter_map(|(case, &seconds)| {
                    let operation = case.operation(device)?;
                    let wanted = operation.class == class && operation.dtype == dtype;
                    let sample = Sample { work: operation.work, seconds };
                    wanted.then(|| (case.name.clone(), sample))
                })
                .collect();
            let samples: Vec<Sample> = of_class.iter().map(|(_, sample)| *sample).collect();
            let cost = fit(&samples);
            *rates.class_mut(class).of_mut(dtype) = cost;
            let cases = of_class.into_iter().map(|(name, sample)| {
                (name, sample.seconds, cost.seconds(&sample.work, rates.hides_traffic))
            });
            fits.push(ClassFit { class, dtype, cases: cases.collect() });
        }
    }
    Ok(Measured { rates, fits })
}

/// The time that counts: the median. Of times below a millisecond, from which a stopwatch takes
/// nothing that other programs took, it is a shorter one: these can only have made them longer.
fn typical(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    if median < 1e-3 { times[times.len() / 4] } else { median }
}

/// A device with memory for any one case.
struct Bed<'a> {
    device: &'a dyn Device,
    threads: usize,
    layout: Arc<Layout>,
    bytes: u64,
}

/// Bits that are an ordinary number in every type: 0.0115 in f32 and bf16, 1.06 in f16. Neither
/// zeros, whose pages would all be one, nor denormal numbers, which some processors are slow with.
const BITS: u32 = 0x3c3c_3c3c;
/// Elements that are filled at a time.
const FILL: usize = 1 << 18;
/// Bytes of a copy on a queue; long enough that beginning it does not count.
const COPY_BYTES: usize = 1 << 24;
const SHORT_COPY_BYTES: usize = 1 << 12;

fn pool(arena: &Arena, bytes: u64) -> Result<Tensor, Error> {
    arena.alloc("operands", DType::F32, [bytes.div_ceil(4) as usize])
}

impl<'a> Bed<'a> {
    fn new(device: &'a dyn Device, threads: usize, cases: &[Case]) -> Result<Bed<'a>, Error> {
        let most = cases.iter().map(|case| case.bytes(device.profile().alignment)).max();
        let bytes = most.unwrap_or(0).max(COPY_BYTES as u64);
        let arena = Arena::record(device.profile().alignment);
        drop(pool(&arena, bytes)?);
        let layout = Arc::new(solve(&arena.into_trace()?));
        device.reserve(layout.peak_bytes)?;
        Ok(Bed { device, threads, layout, bytes })
    }

    fn pool(&self) -> Result<Tensor, Error> {
        pool(&Arena::replay(self.layout.clone()), self.bytes)
    }

    /// Times a case for a round; the first time only warms up.
    fn time(&self, case: &Case, times: &mut Vec<f64>) -> Result<(), Error> {
        let pool = self.pool()?;
        let alignment = self.device.profile().alignment;
        let elements = case.bytes(alignment).div_ceil(4) as usize;
        let values = vec![f32::from_bits(BITS); FILL.min(elements)];
        for start in (0..elements).step_by(FILL) {
            let end = elements.min(start + FILL);
            self.device.upload(&values[..end - start], &mut pool.slice(start..end));
        }
        let operands = case.operands_in(&pool, alignment);
        let began = Instant::now();
        for repeat in 0..=REPEATS {
            let watch = Stopwatch::start();
            (case.call)(self.device, &operands, repeat)?;
            self.device.finish()?;
            let lap = watch.stop(self.threads);
            if repeat > 0 {
                times.push(lap.seconds);
                if began.elapsed() > ROUND_TIME {
                    break;
                }
            }
        }
        Ok(())
    }

    fn upload_queue(&self) -> Result<CopyCost, Error> {
        self.queue(|tensor| {
            let bytes = tensor.bytes() as usize;
            self.device.begin_upload(Arc::new(Bytes(vec![1; bytes])), tensor, &[])
        })
    }

    fn download_queue(&self) -> Result<CopyCost, Error> {
        // A recording arena's buffer has no memory, a replaying one's has.
        let arena = Arena::replay(self.layout.clone());
        let buffer = arena.host_buffer("copy", COPY_BYTES as u64)?;
        self.queue(|tensor| self.device.begin_download(tensor, &buffer, &[]))
    }

    fn queue(&self, begin: impl Fn(&Tensor) -> vidfit_tensor::Fence) -> Result<CopyCost, Error> {
        let pool = self.pool()?;
        let time = |bytes: usize| -> Result<f64, Error> {
            let tensor = pool.slice(0..bytes / 4);
            let mut times = Vec::new();
            for _ in 0..=2 * REPEATS {
                let start = Instant::now();
                let fence = begin(&tensor);
                self.device.wait(fence)?;
                self.device.finish()?;
                times.push(start.elapsed().as_secs_f64());
            }
            Ok(typical(&mut times))
        };
        let (short, long) = (time(SHORT_COPY_BYTES)?, time(COPY_BYTES)?);
        let bytes = (COPY_BYTES - SHORT_COPY_BYTES) as f64;
        let seconds_per_byte = ((long - short) / bytes).max(0.0);
        Ok(CopyCost { seconds_per_copy: short, seconds_per_byte })
    }
}

struct Bytes(Vec<u8>);

impl HostSource for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        let first = first as usize;
        piece.copy_from_slice(&self.0[first..first + piece.len()]);
        Ok(())
    }
}

impl Case {
    /// What a dry run makes of the case; `None` if it is not one operation.
    fn operation(&self, device: &dyn Device) -> Option<vidfit_tensor::rates::Operation> {
        let dry = DryDevice::new(device.profile().clone());
        let operands = self.operands.iter();
        let operands: Vec<Tensor> =
            operands.map(|(dtype, shape)| Tensor::nowhere(*dtype, &shape[..])).collect();
        let (result, operations) = dry.operations_of(|| (self.call)(&dry, &operands, 0));
        match (&result, &operations[..]) {
            (Ok(()), [operation]) => Some(*operation),
            _ => None,
        }
    }

    /// Bytes of all operands, each rounded up to `alignment`.
    fn bytes(&self, alignment: u64) -> u64 {
        self.operands.iter().map(|operand| bytes_of(operand).next_multiple_of(alignment)).sum()
    }

    fn operands_in(&self, pool: &Tensor, alignment: u64) -> Vec<Tensor> {
        let mut first_byte = 0;
        let place = |operand: &(DType, Vec<usize>)| {
            let tensor = pool.recast(first_byte, operand.0, &operand.1[..]);
            first_byte += bytes_of(operand).next_multiple_of(alignment);
            tensor
        };
        self.operands.iter().map(place).collect()
    }
}

fn bytes_of((dtype, shape): &(DType, Vec<usize>)) -> u64 {
    shape.iter().product::<usize>() as u64 * dtype.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use vidfit_cpu::CpuDevice;

    #[test]
    fn every_class_and_type_has_cases() {
        let device = CpuDevice::new(1).unwrap();
        let mut counts = BTreeMap::new();
        for case in cases::all() {
            let operation = case.operation(&device);
            let operation =
                operation.unwrap_or_else(|| panic!("{} is not one operation", case.name));
            *counts.entry((operation.class, format!("{}", operation.dtype))).or_insert(0) += 1;
        }
        for class in Class::ALL {
            for dtype in [DType::F32, DType::BF16, DType::F16] {
                let count = counts.get(&(class, format!("{dtype}")));
                assert!(count.is_some_and(|count| *count >= 2), "{class:?} in {dtype}: {count:?}");
            }
        }
    }

    #[test]
    fn a_processor_can_be_measured() {
        let device = CpuDevice::new(2).unwrap();
        let mut shares = Vec::new();
        let measured = measure(&device, 2, 1, &mut |share| shares.push(share)).unwrap();
        assert!(shares.is_sorted() && shares.last() == Some(&1.0));
        let rates = measured.rates;
        assert!(rates.is_possible() && rates.copies_at_once, "{rates:?}");
        // How near the formula comes is a matter of how busy the machine is: `calibrate` tells that.
        for fit in &measured.fits {
            assert!(fit.cases.len() >= 2, "{:?} in {}", fit.class, fit.dtype);
            for (name, seconds, fitted) in &fit.cases {
                let are_times = [seconds, fitted].into_iter().all(|s| s.is_finite() && *s > 0.0);
                assert!(are_times, "{name}: {seconds} {fitted}");
            }
        }
        let product = rates.linear.f32.seconds_per_flop;
        assert!(product.is_finite() && product > 0.0, "{product} seconds for a flop");
    }
}
