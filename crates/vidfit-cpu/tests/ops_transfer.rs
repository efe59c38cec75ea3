//! Transfers round once and keep every bit otherwise.

mod ops_bed;
use ops_bed::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

/// Longer than two jobs, and not a multiple of anything.
const LENGTH: usize = 2 * 65536 + 4099;

#[test]
fn an_upload_rounds_to_nearest_even() {
    let mut random = Random::new(1);
    let mut values: Vec<f32> = (0..LENGTH).map(|_| 3.0 * random.unit()).collect();
    // Half way between two bf16 numbers: to the even one, down and up; the second also for f16.
    values[0] = f32::from_bits(0x3f80_8000);
    values[1] = f32::from_bits(0x3f81_8000);
    values[LENGTH - 1] = 1.0 + 3.0 / 2048.0;
    for dtype in DTYPES {
        let operand = Operand { dtype, shape: vec![LENGTH], values: values.clone() };
        let expected: Vec<f32> = values.iter().map(|&v| dtype.round(v)).collect();
        for threads in 1..=3 {
            let result = run_on(threads, std::slice::from_ref(&operand), |_, _| {});
            check_exact("upload", DType::F32, &result[0], &expected);
        }
    }
}

/// Bytes that count up, and fail to be read as often as told.
struct Counting {
    bytes: u64,
    failures: AtomicU64,
}

impl Counting {
    fn new(bytes: u64, failures: u64) -> Arc<Counting> {
        Arc::new(Counting { bytes, failures: AtomicU64::new(failures) })
    }
}

impl HostSource for Counting {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        if self.failures.load(Ordering::Relaxed) > 0 {
            let left = self.failures.fetch_sub(1, Ordering::Relaxed) - 1;
            return Err(format!("the disk is gone, {left} to come"));
        }
        piece.iter_mut().zip(first..).for_each(|(byte, n)| *byte = n as u8);
        Ok(())
    }
}

#[test]
fn copies_bring_every_byte_as_it_is() {
    // All patterns of bits, those of no number included.
    let count = 1000;
    let operand = Operand::empty(DType::F16, &[count]);
    run_on(2, &[operand], |device, t| {
        let up = device.begin_upload(Counting::new(2000, 0), &t[0], &[device.fence()]);
        device.wait(up).unwrap();
        let real = Arena::replay(solve(&Arena::record(64).into_trace().unwrap()));
        let buffer = real.host_buffer("longer", 2010).unwrap();
        device.wait(device.begin_download(&t[0], &buffer, &[up])).unwrap();
        let expected: Vec<u8> = (0..2000).map(|n| n as u8).chain([0; 10]).collect();
        assert_eq!(*buffer.lock(), expected);
    });
}

#[test]
fn a_copy_that_failed_is_told_once_where_it_is_waited_for() {
    let operands = [1, 2].map(|_| Operand::empty(DType::F32, &[25]));
    run_on(1, &operands, |device, t| {
        let begin = |failures, t| device.begin_upload(Counting::new(100, failures), t, &[]);
        let (failed, fine) = (begin(1, &t[0]), begin(0, &t[1]));
        let later = begin(2, &t[0]);
        device.wait(device.fence()).unwrap();
        device.wait(fine).expect("other copies are not touched");
        assert_eq!(failure(device, failed), "cpu: the disk is gone, 0 to come");
        device.wait(failed).expect("a failure is told once");
        assert_eq!(failure(device, later), "cpu: the disk is gone, 1 to come");
        device.finish().unwrap();
        let again = begin(0, &t[0]);
        device.wait(again).unwrap();
        let mut both = [[0.0; 25]; 2];
        device.download(&t[0], &mut both[0]).unwrap();
        device.download(&t[1], &mut both[1]).unwrap();
        assert_eq!(both[0].map(f32::to_bits), both[1].map(f32::to_bits));
        assert_eq!(both[0][1].to_bits(), 0x0706_0504);
    });
}

fn failure(device: &CpuDevice, fence: Fence) -> String {
    match device.wait(fence) {
        Err(Error::Transfer { device, what }) => format!("{device}: {what}"),
        other => panic!("{other:?}"),
    }
}
