//! The copying queues of the simulated card: they fail, take their time, and outlive nobody.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod sim_bed;
use sim_bed::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vidfit_cpu::{Direction, Faults, SimConfig, SimDevice};
use vidfit_tensor::*;

const COUNT: usize = 5000;

fn faulty(faults: Faults) -> Arc<SimDevice> {
    // Several pieces each, so that failures come in their midst.
    card(SimConfig { faults, piece_bytes: 4096, ..delayed(3, 100) })
}

fn upload(device: &dyn Device, from: usize, t: &Tensor) -> Result<(), Error> {
    device.wait(device.begin_upload(source(from, COUNT), t, &[device.fence()]))
}

fn failure(result: Result<(), Error>) -> String {
    match result {
        Err(Error::Transfer { device, what }) => format!("{device}: {what}"),
        other => panic!("{other:?}"),
    }
}

/// Runs `body` on `count` tensors of [`COUNT`] values. It is not run to plan it.
fn on<R>(sim: &Arc<SimDevice>, count: usize, body: impl Fn(&[Tensor]) -> R) -> R {
    let result = Mutex::new(None);
    play(sim, &|_, arena| {
        let tensors: Result<Vec<Tensor>, Error> =
            (0..count).map(|_| arena.alloc("t", DType::F32, [COUNT])).collect();
        if !arena.is_recording() {
            *result.lock().unwrap() = Some(body(&tensors?));
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(sim.violations(), [""; 0]);
    result.into_inner().unwrap().unwrap()
}

#[test]
fn an_upload_that_failed_once_can_be_tried_again() {
    let sim = faulty(Faults::Chosen(Arc::new(|direction, number| {
        direction == Direction::Upload && number == 2
    })));
    on(&sim, 3, |t| {
        let fences: Vec<Fence> =
            (0..3).map(|n| sim.begin_upload(source(n, COUNT), &t[n], &[sim.fence()])).collect();
        sim.wait(fences[0]).unwrap();
        let what = failure(sim.wait(fences[1]));
        assert!(what.starts_with("sim: simulated failure at byte "), "{what}");
        sim.wait(fences[1]).expect("a failure is told once");
        sim.wait(fences[2]).expect("later copies are not touched");
        sim.finish().unwrap();
        upload(&*sim, 1, &t[1]).unwrap();
        for (n, t) in t.iter().enumerate() {
            assert_eq!(fetch(&*sim, t).unwrap(), values(n, COUNT), "upload {n}");
        }
    });
    assert_eq!(sim.counters().uploads, 4);
}

#[test]
fn a_card_may_fail_for_good() {
    let sim = faulty(Faults::UploadsFrom(2));
    on(&sim, 1, |t| {
        upload(&*sim, 0, &t[0]).unwrap();
        for _ in 0..3 {
            failure(upload(&*sim, 0, &t[0]));
        }
        sim.set_faults(Faults::None);
        upload(&*sim, 4, &t[0]).unwrap();
        assert_eq!(fetch(&*sim, &t[0]).unwrap(), values(4, COUNT));
    });
}

#[test]
fn uploads_fail_as_often_as_told_and_the_same_in_every_run() {
    let fates = || {
        let sim = card(SimConfig { faults: Faults::Uploads(0.25), ..delayed(11, 0) });
        on(&sim, 1, |t| (0..200).map(|n| upload(&*sim, n, &t[0]).is_err()).collect::<Vec<_>>())
    };
    let first = fates();
    assert_eq!(first, fates());
    let failed = first.iter().filter(|failed| **failed).count();
    assert!((30..70).contains(&failed), "{failed} of 200");
    let other = card(SimConfig { faults: Faults::Uploads(0.25), ..delayed(12, 0) });
    let fate = |t: &[Tensor]| (0..200).map(|n| upload(&*other, n, &t[0]).is_err()).collect();
    let fates: Vec<bool> = on(&other, 1, fate);
    assert_ne!(first, fates, "another seed, another fate");
}

#[test]
fn what_a_failed_upload_left_is_garbage_that_nobody_may_read() {
    let sim = faulty(Faults::UploadsFrom(1));
    let result = play(&sim, &|device, arena| {
        let t = arena.alloc("t", DType::F32, [COUNT])?;
        let failed = upload(device, 0, &t);
        assert_eq!(failed.is_err(), !arena.is_recording());
        let values = fetch(device, &t);
        assert!(values.is_err() || arena.is_recording());
        Ok(())
    });
    assert!(matches!(result, Err(Error::Device { .. })), "{result:?}");
    let expected = "download by hand (operation 2) reads bytes 0..20000, which upload 1 should \
                    have written, but failed";
    assert_eq!(sim.violations(), [expected]);
}

#[test]
fn a_failed_download_is_told_as_well() {
    let chosen = |direction, _| direction == Direction::Download;
    let sim = faulty(Faults::Chosen(Arc::new(chosen)));
    play(&sim, &|device, arena| {
        let (t, buffer) = (arena.alloc("t", DType::F32, [4])?, arena.host_buffer("b", 16)?);
        device.upload(&values(0, 4), &mut t.clone());
        let fence = device.begin_download(&t, &buffer, &[device.fence()]);
        if !arena.is_recording() {
            failure(device.wait(fence));
            assert_eq!(*buffer.lock(), [0xff; 16]);
        }
        Ok(())
    })
    .unwrap();
}

/// A source that fails in its own way.
struct Broken(fn() -> String);

impl HostSource for Broken {
    fn len(&self) -> u64 {
        4 * COUNT as u64
    }

    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        piece.fill(1);
        if first > 0 { Err((self.0)()) } else { Ok(()) }
    }
}

#[test]
fn a_source_may_fail_or_panic() {
    let sim = faulty(Faults::None);
    on(&sim, 1, |t| {
        let wait = |source| sim.wait(sim.begin_upload(Arc::new(source), &t[0], &[sim.fence()]));
        assert_eq!(failure(wait(Broken(|| "the disk is gone".into()))), "sim: the disk is gone");
        assert_eq!(failure(wait(Broken(|| panic!("a bug")))), "sim: the source panicked");
        upload(&*sim, 2, &t[0]).unwrap();
        assert_eq!(fetch(&*sim, &t[0]).unwrap(), values(2, COUNT));
    });
}

#[test]
fn pieces_begin_at_multiples_of_64_and_cover_everything() {
    /// Notes what it is asked for.
    struct Noting(Mutex<Vec<(u64, usize)>>);
    impl HostSource for Noting {
        fn len(&self) -> u64 {
            20_000
        }
        fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
            self.0.lock().unwrap().push((first, piece.len()));
            Ok(())
        }
    }
    let sim = card(SimConfig { piece_bytes: 8192, ..small() });
    let source = Arc::new(Noting(Mutex::default()));
    on(&sim, 1, |t| sim.wait(sim.begin_upload(source.clone(), &t[0], &[sim.fence()])).unwrap());
    assert_eq!(*source.0.lock().unwrap(), [(0, 8192), (8192, 8192), (16384, 3616)]);
}

#[test]
fn copies_take_the_modelled_time() {
    let sim = card(SimConfig {
        upload_bytes_per_second: Some(200e3),
        download_bytes_per_second: Some(100e3),
        piece_bytes: 4096,
        ..small()
    });
    play(&sim, &|device, arena| {
        let (t, buffer) = (arena.alloc("t", DType::F32, [COUNT])?, arena.host_buffer("b", 20_000)?);
        let begin = Instant::now();
        let fence = device.begin_upload(source(0, COUNT), &t, &[device.fence()]);
        device.wait(fence)?;
        let up = begin.elapsed();
        device.wait(device.begin_download(&t, &buffer, &[fence]))?;
        let down = begin.elapsed() - up;
        if !arena.is_recording() {
            assert!(up >= Duration::from_millis(100), "20,000 bytes up took {up:?}");
            assert!(down >= Duration::from_millis(200), "20,000 bytes down took {down:?}");
        }
        Ok(())
    })
    .unwrap();
}

/// A source that gives nothing until it is told to.
struct Hanging(Mutex<Receiver<()>>);

impl Hanging {
    fn new() -> (Sender<()>, Arc<Hanging>) {
        let (sender, receiver) = channel();
        (sender, Arc::new(Hanging(Mutex::new(receiver))))
    }
}

impl HostSource for Hanging {
    fn len(&self) -> u64 {
        4 * COUNT as u64
    }

    fn read(&self, _: u64, piece: &mut [u8]) -> Result<(), String> {
        let _ = self.0.lock().unwrap().recv();
        piece.fill(0);
        Ok(())
    }
}

#[test]
fn copies_go_on_beside_the_computing() {
    let sim = card(small());
    on(&sim, 2, |t| {
        let (sender, source) = Hanging::new();
        let fence = sim.begin_upload(source, &t[0], &[sim.fence()]);
        // Were the copy made first, this would never come to an end.
        sim.upload(&values(1, COUNT), &mut t[1].clone());
        sim.silu(&t[1].clone(), &mut t[1].clone());
        assert!(fetch(&*sim, &t[1]).unwrap().iter().any(|value| *value > 1.0));
        sender.send(()).unwrap();
        sim.wait(fence).unwrap();
        assert_eq!(fetch(&*sim, &t[0]).unwrap(), vec![0.0; COUNT]);
    });
}

#[test]
fn operations_are_held_up_as_told() {
    let sim = card(SimConfig { compute_delay: Duration::from_millis(20), ..small() });
    on(&sim, 1, |t| {
        let begin = Instant::now();
        sim.upload(&values(1, COUNT), &mut t[0].clone());
        sim.silu(&t[0].clone(), &mut t[0].clone());
        assert!(begin.elapsed() >= Duration::from_millis(40));
    });
}

#[test]
fn release_lets_copies_end_first() {
    let sim = card(SimConfig { upload_bytes_per_second: Some(200e3), ..small() });
    let source = Arc::new(Bytes(vec![0; 20_000]));
    sim.reserve(20_224).unwrap();
    let t = placed();
    let begin = Instant::now();
    sim.begin_upload(source.clone(), &t, &[]);
    sim.release();
    assert!(begin.elapsed() >= Duration::from_millis(100));
    assert_eq!(Arc::strong_count(&source), 1, "nothing is held of a copy that has ended");
    assert_eq!(sim.violations(), ["nobody waited for upload 1 before the arena went"]);
    assert_eq!(sim.held_bytes(), 0);
    sim.reserve(20_224).unwrap();
    sim.release();
    assert_eq!(sim.violations().len(), 1, "it is told once");
}

/// A tensor at the beginning of an arena that nobody asks.
fn placed() -> Tensor {
    let arena = Arena::record(256);
    arena.alloc("t", DType::F32, [COUNT]).unwrap()
}

#[test]
fn a_device_dropped_with_work_under_way_does_not_wait_for_it() {
    // This would take six hours.
    let sim = card(SimConfig { upload_bytes_per_second: Some(1.0), piece_bytes: 64, ..small() });
    let source = Arc::new(Bytes(vec![0; 20_000]));
    sim.reserve(20_224).unwrap();
    let buffer = Arena::record(256).host_buffer("buffer", 20_000).unwrap();
    let under_way = sim.begin_upload(source.clone(), &placed(), &[]);
    let waiting = sim.begin_download(&placed(), &buffer, &[under_way]);
    sim.begin_upload(source.clone(), &placed(), &[waiting]);
    assert_eq!(sim.violations(), [""; 0]);
    let begin = Instant::now();
    drop(sim);
    while Arc::strong_count(&source) > 1 {
        assert!(begin.elapsed() < Duration::from_secs(10), "the thread goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nor_for_a_source_that_hangs() {
    let (sender, source) = Hanging::new();
    let sim = card(small());
    sim.reserve(20_224).unwrap();
    sim.begin_upload(source.clone(), &placed(), &[]);
    drop(sim);
    // The copy still has what it writes to.
    sender.send(()).unwrap();
    let begin = Instant::now();
    while Arc::strong_count(&source) > 1 {
        assert!(begin.elapsed() < Duration::from_secs(10), "the thread goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
}
