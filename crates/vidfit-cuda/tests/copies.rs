//! Copies beside the computing: their order, their failures, and what they leave behind.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod bed;
mod copies_bed;

use bed::{Emulated, Kind, Late, Random};
use copies_bed::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vidfit_cuda::CudaDevice;
use vidfit_tensor::*;

/// Orders in which the late card does its work.
const SEEDS: u64 = 20;

/// An emulated card whose kernels are right whatever the order.
const ONE_ORDER: Kind = Kind { orders: 1, ..Kind::SM_80 };

/// Runs `body` on the late card, and has it end well.
fn late(body: impl Fn(Late)) {
    for seed in 0..SEEDS {
        let card = Late::new(seed);
        body(card.clone());
        settled(&card);
    }
}

/// Nothing is left on the card.
fn settled(card: &Late) {
    let begin = Instant::now();
    // The threads end by themselves.
    while card.pinned_bytes() + card.allocated_bytes() + card.events() as u64 > 0 {
        let left = (card.pinned_bytes(), card.allocated_bytes(), card.events());
        assert!(begin.elapsed() < Duration::from_secs(20), "{left:?} are left");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(card.faults(), [""; 0]);
}

#[test]
fn long_copies() {
    long_copies_arrive(Emulated::new(ONE_ORDER));
    late(long_copies_arrive);
}

#[test]
fn slots() {
    slots_are_used_again(Emulated::new(ONE_ORDER), 100);
    late(|card| slots_are_used_again(card, 100));
    slots_are_used_again(Late::new(99), LONG);
}

#[test]
fn pages() {
    pages_go_and_come(Emulated::new(ONE_ORDER), 100);
    late(|card| pages_go_and_come(card, 100));
    pages_go_and_come(Late::new(99), LONG);
}

#[test]
fn failures() {
    failures_are_told_once(Emulated::new(ONE_ORDER));
    late(failures_are_told_once);
}

#[test]
fn warm_regions() {
    warm_regions_are_copied_to(Emulated::new(ONE_ORDER));
    late(warm_regions_are_copied_to);
}

#[test]
fn finishing() {
    finish_waits_for_copies(Emulated::new(ONE_ORDER));
    late(finish_waits_for_copies);
}

/// Also within a unit, which may have thousands of launches, the host does not run away from the card.
#[test]
fn launches() {
    for seed in 0..3 {
        let card = Late::new(seed);
        let seen = || assert!(card.computing() <= 700, "{} are left", card.computing());
        many_launches_are_asked_for(card.clone(), seen);
        settled(&card);
    }
}

#[test]
fn pieces_begin_at_multiples_of_64_and_cover_everything_once() {
    let table = Table::new(Late::new(1), &[LONG]);
    let source = source(3, LONG);
    table.device.wait(table.device.begin_upload(source.clone(), &table.tensors[0], &[])).unwrap();
    let mut end = 0;
    let mut pieces = source.pieces.lock().unwrap().clone();
    pieces.sort_unstable();
    for (first, length) in pieces {
        assert_eq!((first, first % 64), (end, 0));
        end += length as u64;
    }
    assert_eq!(end, source.len());
}

#[test]
fn staging_is_what_is_said() {
    let card = Late::new(1);
    let device = CudaDevice::new(card.clone()).unwrap();
    assert_eq!(card.pinned_bytes(), CudaDevice::<Late>::STAGING_BYTES);
    drop(device);
    settled(&card);
}

/// What a model may do, in any order: copies in and out, sums, all with the fences that they need.
#[test]
fn any_order_of_work_has_the_result_of_one_after_the_other() {
    const COUNT: usize = 64;
    const TENSORS: usize = 4;
    for seed in 0..5 * SEEDS {
        let mut random = Random::new(seed);
        let card = Late::new(seed);
        let table = Table::new(card.clone(), &[COUNT; TENSORS]);
        let device = &table.device;
        let mut expected: Vec<Vec<f32>> = (0..TENSORS).map(|n| values(n, COUNT)).collect();
        let mut out: Vec<Option<Vec<f32>>> = vec![None; TENSORS];
        // The copy that each tensor is used by until it is waited for, and each buffer.
        let mut copies: Vec<Fence> = (0..TENSORS).map(|n| table.upload(n, n, &[])).collect();
        for step in 0..60 {
            let (a, b) = (random.between(0, TENSORS - 1), random.between(0, TENSORS - 1));
            match random.between(0, 3) {
                0 if a != b => {
                    device.wait(copies[a]).unwrap();
                    device.wait(copies[b]).unwrap();
                    table.add(a, b);
                    expected[b] =
                        expected[b].iter().zip(&expected[a]).map(|(b, a)| b + a).collect();
                }
                1 => {
                    copies[a] = table.upload(step, a, &[copies[a], device.fence()]);
                    expected[a] = values(step, COUNT);
                }
                2 => {
                    copies[a] = table.download(a, &[copies[a], device.fence()]);
                    out[a] = Some(expected[a].clone());
                }
                3 if out[a].is_some() => {
                    let (source, after) = (Arc::new(table.buffers[a].clone()), device.fence());
                    let after = [copies[a], copies[b], after];
                    copies[b] = device.begin_upload(source, &table.tensors[b], &after);
                    copies[a] = copies[b];
                    expected[b].clone_from(out[a].as_ref().unwrap());
                }
                _ => {}
            }
        }
        copies.iter().for_each(|&fence| device.wait(fence).unwrap());
        for n in 0..TENSORS {
            assert_eq!(table.fetch(n), expected[n], "seed {seed}, tensor {n}");
            if let Some(out) = &out[n] {
                assert_eq!(table.buffer(n), *out, "seed {seed}, buffer {n}");
            }
        }
        drop(table);
        settled(&card);
    }
}

#[test]
fn a_card_that_refuses_copies_is_told_of_and_can_be_tried_again() {
    late(|card| {
        let table = Table::new(card.clone(), &[LONG]);
        let device = &table.device;
        card.refuse_after(3);
        let up = table.upload(0, 0, &[]);
        assert_eq!(failure(device.wait(up)), "late: refused");
        card.refuse_after(2);
        let down = table.download(0, &[]);
        assert_eq!(failure(device.wait(down)), "late: refused");
        card.refuse_after(u64::MAX);
        let down = table.download(0, &[table.upload(4, 0, &[])]);
        device.wait(down).unwrap();
        assert_eq!(table.buffer(0), values(4, LONG));
    });
}

#[test]
fn fences_are_forgotten_once_they_are_passed() {
    let card = Late::new(7);
    let table = Table::new(card.clone(), &[100, 100]);
    for n in 0..500 {
        let arrived = table.upload(n, 0, &[table.device.fence()]);
        table.device.wait(arrived).unwrap();
        table.add(0, 1);
        if n % 10 == 9 {
            table.device.finish().unwrap();
        }
    }
    assert!(card.events() < 50, "{} events", card.events());
}

/// A source that gives nothing until it is told to.
struct Hanging(Mutex<Receiver<()>>, u64);

impl Hanging {
    fn new(bytes: u64) -> (Sender<()>, Arc<Hanging>) {
        let (sender, receiver) = channel();
        (sender, Arc::new(Hanging(Mutex::new(receiver), bytes)))
    }
}

impl HostSource for Hanging {
    fn len(&self) -> u64 {
        self.1
    }

    fn read(&self, _: u64, piece: &mut [u8]) -> Result<(), String> {
        let _ = self.0.lock().unwrap().recv();
        piece.fill(0);
        Ok(())
    }
}

#[test]
fn copies_go_on_beside_the_computing() {
    let table = Table::new(Late::new(3), &[100, 100, 100]);
    let device = &table.device;
    let (sender, source) = Hanging::new(400);
    let fence = device.begin_upload(source.clone(), &table.tensors[0], &[device.fence()]);
    // Were the copy made first, this would never come to an end.
    device.upload(&values(1, 100), &mut table.tensors[1].clone());
    device.wait(table.download(1, &[device.fence()])).unwrap();
    assert_eq!(table.fetch(1), values(1, 100));
    sender.send(()).unwrap();
    device.wait(fence).unwrap();
    assert_eq!(table.fetch(0), vec![0.0; 100]);
    assert_eq!(Arc::strong_count(&source), 1, "nothing is held of a copy that has ended");
}

#[test]
fn release_lets_copies_end_first() {
    let card = Late::new(4);
    let table = Table::new(card.clone(), &[LONG]);
    let source = source(0, LONG);
    table.device.begin_upload(source.clone(), &table.tensors[0], &[]);
    table.device.release();
    assert_eq!((card.allocated_bytes(), Arc::strong_count(&source)), (0, 1));
    assert_eq!(card.faults(), [""; 0]);
}

#[test]
fn a_device_that_is_dropped_does_not_wait_for_a_source_that_hangs() {
    let card = Late::new(5);
    let table = Table::new(card.clone(), &[100]);
    let (sender, source) = Hanging::new(400);
    table.device.begin_upload(source.clone(), &table.tensors[0], &[]);
    let waiting = table.upload(1, 0, &[]);
    table.download(0, &[waiting]);
    drop(table);
    // The copy still has what it writes to.
    sender.send(()).unwrap();
    settled(&card);
    assert_eq!(Arc::strong_count(&source), 1);
}

/// The host does not run away from the card: what it says is done is nearly so.
#[test]
fn the_card_is_close_behind() {
    let card = Late::new(5);
    let table = Table::new(card.clone(), &[100, 100]);
    table.device.wait(table.upload(1, 0, &[])).unwrap();
    table.device.wait(table.upload(2, 1, &[])).unwrap();
    for units in 1..=20 {
        table.add(0, 1);
        table.device.unit_done();
        assert!(card.computing() <= 3 * 2, "{} are left after {units}", card.computing());
    }
    let sum = |(to, from): (f32, f32)| (0..20).fold(to, |sum, _| sum + from);
    let expected: Vec<f32> = values(2, 100).into_iter().zip(values(1, 100)).map(sum).collect();
    assert_eq!(table.fetch(1), expected);
    table.device.finish().unwrap();
}
