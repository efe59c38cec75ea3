//! What the tests of copies share: tensors and buffers on a device, and copies that hold for any card.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::sync::{Arc, Mutex};
use vidfit_cuda::{CudaDevice, Driver};
use vidfit_tensor::*;

/// More than all pieces that are under way at once, and not a multiple of anything.
pub const LONG: usize = (9 << 18) + 12_345;

/// A device with tensors of so many f32, and as many buffers of as many bytes.
pub struct Table<D: Driver> {
    pub device: CudaDevice<D>,
    pub tensors: Vec<Tensor>,
    pub buffers: Vec<HostBuffer>,
    _arena: Arena,
}

impl<D: Driver> Table<D> {
    pub fn new(driver: D, counts: &[usize]) -> Table<D> {
        let device = CudaDevice::new(driver).unwrap();
        let dry = Arena::record(device.profile().alignment);
        drop(lay(&dry, counts));
        let layout = solve(&dry.into_trace().unwrap());
        device.reserve(layout.peak_bytes).unwrap();
        device.poison(0, layout.peak_bytes);
        device.finish().unwrap();
        let arena = Arena::replay(layout);
        let (tensors, buffers) = lay(&arena, counts);
        Table { device, tensors, buffers, _arena: arena }
    }

    /// Begins to copy [`values`] to a tensor.
    pub fn upload(&self, from: usize, to: usize, after: &[Fence]) -> Fence {
        let to = &self.tensors[to];
        self.device.begin_upload(source(from, to.shape().elements()), to, after)
    }

    pub fn download(&self, from: usize, after: &[Fence]) -> Fence {
        self.device.begin_download(&self.tensors[from], &self.buffers[from], after)
    }

    /// `to += from`
    pub fn add(&self, from: usize, to: usize) {
        self.device.add(&self.tensors[from], &mut self.tensors[to].clone());
    }

    pub fn fetch(&self, tensor: usize) -> Vec<f32> {
        fetch(&self.device, &self.tensors[tensor])
    }

    pub fn buffer(&self, number: usize) -> Vec<f32> {
        let bytes = self.buffers[number].lock();
        bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }
}

fn lay(arena: &Arena, counts: &[usize]) -> (Vec<Tensor>, Vec<HostBuffer>) {
    let tensor = |&count: &usize| arena.alloc("t", DType::F32, [count]).unwrap();
    let tensors = counts.iter().map(tensor).collect();
    let buffer = |&count: &usize| arena.host_buffer("b", 4 * count as u64).unwrap();
    (tensors, counts.iter().map(buffer).collect())
}

pub fn fetch(device: &dyn Device, tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.shape().elements()];
    device.download(tensor, &mut values).unwrap();
    values
}

/// Whole numbers, so that sums of them are exact.
pub fn values(from: usize, count: usize) -> Vec<f32> {
    (0..count).map(|n| ((from * 31 + n * 7) % 1021) as f32 - 300.0).collect()
}

/// [`values`] as bytes on the host.
pub fn source(from: usize, count: usize) -> Arc<Bytes> {
    let bytes = values(from, count).iter().flat_map(|value| value.to_le_bytes()).collect();
    Arc::new(Bytes { bytes, pieces: Mutex::default(), fails_at: None })
}

/// Bytes on the host that note what is asked of them, and may fail.
pub struct Bytes {
    pub bytes: Vec<u8>,
    pub pieces: Mutex<Vec<(u64, usize)>>,
    /// From which byte on, and how.
    pub fails_at: Option<(u64, fn() -> String)>,
}

impl HostSource for Bytes {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        self.pieces.lock().unwrap().push((first, piece.len()));
        if let Some((byte, how)) = self.fails_at
            && first + piece.len() as u64 > byte
        {
            return Err(how());
        }
        piece.copy_from_slice(&self.bytes[first as usize..][..piece.len()]);
        Ok(())
    }
}

pub fn failure(result: Result<(), Error>) -> String {
    match result {
        Err(Error::Transfer { device, what }) => format!("{device}: {what}"),
        other => panic!("{other:?}"),
    }
}

/// Long copies there and back are the same bytes, whatever their length.
pub fn long_copies_arrive(driver: impl Driver) {
    let counts = [LONG, 1, 16, 1 << 18];
    let table = Table::new(driver, &counts);
    for (n, count) in counts.into_iter().enumerate() {
        let up = table.upload(n, n, &[table.device.fence()]);
        let down = table.download(n, &[up]);
        table.device.wait(down).unwrap();
        assert_eq!(table.buffer(n), values(n, count), "{count} there and back");
        assert_eq!(table.fetch(n), values(n, count), "{count} there");
    }
    let bytes = 4 * counts.iter().sum::<usize>() as u64;
    let copied = Copied { uploaded_bytes: bytes, downloaded_bytes: 2 * bytes };
    assert_eq!(table.device.copied(), copied);
    table.device.finish().unwrap();
}

/// Slots are filled while others are computed with, as a ring of weights is.
pub fn slots_are_used_again(driver: impl Driver, count: usize) {
    let table = Table::new(driver, &[count, count, count]);
    let (device, sum) = (&table.device, 2);
    device.upload(&vec![0.0; count], &mut table.tensors[sum].clone());
    let mut arrived = [table.upload(0, 0, &[]), table.upload(1, 1, &[])];
    for block in 0..10 {
        let slot = block % 2;
        device.wait(arrived[slot]).unwrap();
        table.add(slot, sum);
        arrived[slot] = table.upload(block + 2, slot, &[device.fence()]);
    }
    let expected = (0..10).map(|block| values(block, count));
    let expected = expected.reduce(|a, b| a.iter().zip(b).map(|(a, b)| a + b).collect());
    assert_eq!(table.fetch(sum), expected.unwrap());
    arrived.iter().for_each(|&fence| device.wait(fence).unwrap());
    assert_eq!(table.fetch(0), values(10, count));
    assert_eq!(table.fetch(1), values(11, count));
}

/// A tensor goes out, its place is used for something else, and it comes back.
pub fn pages_go_and_come(driver: impl Driver, count: usize) {
    let table = Table::new(driver, &[count, count]);
    let device = &table.device;
    for round in 0..5 {
        device.upload(&values(round, count), &mut table.tensors[0].clone());
        let out = table.download(0, &[device.fence()]);
        device.wait(out).unwrap();
        device.upload(&values(round + 9, count), &mut table.tensors[0].clone());
        let buffer = Arc::new(table.buffers[0].clone());
        let back = device.begin_upload(buffer, &table.tensors[1], &[out, device.fence()]);
        device.wait(back).unwrap();
        assert_eq!(table.fetch(1), values(round, count), "round {round}");
        assert_eq!(table.fetch(0), values(round + 9, count), "round {round}");
    }
}

/// A source that fails is told of once, and is in nobody's way.
pub fn failures_are_told_once(driver: impl Driver) {
    let table = Table::new(driver, &[LONG, 100]);
    let device = &table.device;
    let name = device.profile().name.clone();
    let broken = |byte, how| {
        let mut source = Arc::into_inner(source(1, LONG)).unwrap();
        source.fails_at = Some((byte, how));
        device.begin_upload(Arc::new(source), &table.tensors[0], &[])
    };
    let lost = broken(3 << 20, || "the disk is gone".into());
    let bug = broken(0, || panic!("a bug"));
    let other = table.upload(2, 1, &[lost, bug]);
    assert_eq!(failure(device.wait(bug)), format!("{name}: the source panicked"));
    device.wait(other).expect("later copies are not touched");
    assert_eq!(failure(device.wait(lost)), format!("{name}: the disk is gone"));
    device.wait(lost).expect("a failure is told once");
    device.finish().expect("nor by this");
    device.wait(table.upload(5, 0, &[device.fence()])).unwrap();
    assert_eq!(table.fetch(0), values(5, LONG));
    failure(device.wait(broken(3 << 20, || "again".into())));
    device.upload(&values(6, LONG), &mut table.tensors[0].clone());
    device.finish().unwrap();
    assert_eq!(table.fetch(0), values(6, LONG), "nothing of the copy came later");
    assert_eq!(table.fetch(1), values(2, 100));
}

/// Nothing goes on any more once the device says that it has finished, though nobody waited for it.
pub fn finish_waits_for_copies(driver: impl Driver) {
    let table = Table::new(driver, &[LONG]);
    let source = source(3, LONG);
    let up = table.device.begin_upload(source.clone(), &table.tensors[0], &[]);
    table.download(0, &[up]);
    table.device.finish().unwrap();
    assert_eq!(Arc::strong_count(&source), 1, "the source is still used");
    assert_eq!(table.buffer(0), values(3, LONG));
}

/// More launches than a driver's queue has room for, with nobody waiting for any. What is to be seen after
/// each is asked of `seen`.
pub fn many_launches_are_asked_for<D: Driver>(driver: D, seen: impl Fn()) {
    let table = Table::new(driver, &[8, 8]);
    let device = &table.device;
    device.upload(&[1.0; 8], &mut table.tensors[0].clone());
    device.upload(&[0.0; 8], &mut table.tensors[1].clone());
    for _ in 0..1500 {
        table.add(0, 1);
        seen();
    }
    assert_eq!(table.fetch(1), [1500.0; 8]);
    device.finish().unwrap();
}

/// Weights stay in a region of their own, without an arena.
pub fn warm_regions_are_copied_to(driver: impl Driver) {
    let device = CudaDevice::new(driver).unwrap();
    let dry = Arena::record(device.profile().alignment);
    drop(dry.alloc("weights", DType::F32, [1000]).unwrap());
    let layout = solve(&dry.into_trace().unwrap());
    let region = device.reserve_warm(layout.peak_bytes).unwrap();
    let arena = Arena::replay_in(region, layout);
    let weights = arena.alloc("weights", DType::F32, [1000]).unwrap();
    device.wait(device.begin_upload(source(0, 1000), &weights, &[])).unwrap();
    device.reserve(4096).unwrap();
    device.poison(0, 4096);
    device.release();
    assert_eq!(fetch(&device, &weights), values(0, 1000));
    device.release_warm(region);
    device.release_warm(region);
    device.finish().unwrap();
}
