//! Matrix products by cuBLASLt: by a library of the emulation (`emulation/blas.cpp`), over its driver; and,
//! where this machine has a card, by whatever makes them there.
//!
//! Tests that begin with `inside` are run by the others, each in a process of its own that has both
//! libraries of the emulation.

#![cfg(target_os = "linux")]
// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod bed;
mod memory_bed;

use bed::*;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use vidfit_cpu::CpuDevice;
use vidfit_cuda::{Cuda, CudaDevice};
use vidfit_tensor::*;

/// Set in the processes that have the emulation's driver.
const IS_INSIDE: &str = "VIDFIT_TEST_INSIDE";
const VARIABLE: &str = "VIDFIT_CUBLASLT";

fn library() -> PathBuf {
    let flags = ["-O3", "-shared", "-fPIC", "-fvisibility=hidden"];
    compiled("blas.cpp", "blas/libcublasLt.so.13", &flags)
}

/// Runs a test of this program with the driver, and with the library unless the settings say otherwise:
/// whether it passed, and what was said.
fn inside(test: &str, settings: &[(&str, &str)]) -> (bool, String) {
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", driver().parent().unwrap())
        .env(VARIABLE, library())
        .env(IS_INSIDE, "1")
        .env("RUST_BACKTRACE", "0")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (ran.status.success(), said.concat())
}

fn passes_inside(test: &str, settings: &[(&str, &str)]) {
    let (passed, said) = inside(test, settings);
    assert!(passed && said.contains("1 passed"), "{settings:?}: {said}");
}

fn is_inside() -> bool {
    std::env::var_os(IS_INSIDE).is_some()
}

fn emulated_card() -> Option<Arc<CudaDevice<Cuda>>> {
    is_inside().then(|| Arc::new(CudaDevice::new(Cuda::open(0).unwrap()).unwrap()))
}

/// Products that the emulation's library has made, in this process.
fn made() -> Option<u64> {
    let path = std::env::var_os(VARIABLE).filter(|_| is_inside())?;
    // SAFETY: it is loaded already; the function is as `emulation/blas.cpp` has it.
    unsafe {
        let library = libloading::Library::new(path).unwrap();
        let count = library.get::<unsafe extern "C" fn() -> u64>("emulated_products").unwrap();
        Some(count())
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    shape: [usize; 3],
    x: DType,
    weight: DType,
    target: DType,
    has_bias: bool,
    activation: Activation,
}

impl Case {
    fn of(dtype: DType, shape: [usize; 3]) -> Case {
        let (activation, has_bias) = (Activation::None, true);
        Case { shape, x: dtype, weight: dtype, target: dtype, has_bias, activation }
    }

    /// x, weight, bias and target.
    fn operands(self, random: &mut Random) -> [Operand; 4] {
        let [rows, columns, depth] = self.shape;
        [
            random.typed(self.x, &[rows, depth], 0.0, 1.0),
            random.typed(self.weight, &[columns, depth], 0.0, 0.25),
            random.typed(self.weight, &[columns], 0.0, 1.0),
            Operand::empty(self.target, &[rows, columns]),
        ]
    }

    fn product(self, device: &dyn Device, t: &[Tensor]) {
        let bias = self.has_bias.then_some(&t[2]);
        let op = Linear { x: &t[0], weight: &t[1], bias, activation: self.activation };
        device.linear(op, &mut t[3].clone());
    }
}

/// Holds a product to the CPU's. The sums of the emulation's library are the same chains, and only its GELU
/// is another. Others are beside the CPU's; a real library's GELU has a coarser tanh.
fn check(card: &Arc<CudaDevice<Cuda>>, case: Case, goes_to_library: bool, random: &mut Random) {
    let operands = case.operands(random);
    let before = made();
    let run =
        |device: Arc<dyn Device>| run_on(device, &operands, &|device, t| case.product(device, t));
    let taken = memory_bed::taken(card.driver());
    let on_card = run(card.clone());
    let on_cpu = run(Arc::new(CpuDevice::new(1).unwrap()));
    assert_eq!(made(), before.map(|before| before + u64::from(goes_to_library)), "{case:?}");
    card.release();
    // Others may have taken some meanwhile; what a product takes, it takes again.
    let mut left = memory_bed::still(card.driver(), taken, "by a product");
    for _ in 1..memory_bed::ATTEMPTS {
        if left.is_ok() || is_inside() {
            break;
        }
        let taken = memory_bed::taken(card.driver());
        run(card.clone());
        card.release();
        left = memory_bed::still(card.driver(), taken, "by a product");
    }
    assert_eq!(left, Ok(()), "{case:?}");
    let step = match case.target {
        DType::F32 => 2.0f32.powi(-20),
        DType::F16 => 2.0f32.powi(-10),
        DType::BF16 => 2.0f32.powi(-7),
    };
    let is_gelu = case.activation == Activation::GeluTanh;
    let is_exact = is_inside() && goes_to_library && !is_gelu;
    let coarseness = if is_inside() || !is_gelu { 0.0 } else { 2.0f32.powi(-9) };
    for (i, (&a, &b)) in on_card[3].iter().zip(&on_cpu[3]).enumerate() {
        let is_near = (a - b).abs() <= step * b.abs().max(0.25) + coarseness;
        let agree = if is_exact { a.to_bits() == b.to_bits() } else { is_near };
        assert!(agree, "{case:?}: element {i} is {a} on the card, {b} on the CPU");
    }
}

fn check_products(card: &Arc<CudaDevice<Cuda>>) {
    let mut random = Random::new(1);
    for dtype in [DType::F16, DType::BF16] {
        for shape in [[1, 8, 64], [3, 64, 128], [17, 40, 192], [70, 128, 1024]] {
            let case = Case::of(dtype, shape);
            let gelu = Case { activation: Activation::GeluTanh, ..case };
            for case in [case, Case { has_bias: false, ..case }, gelu] {
                check(card, case, true, &mut random);
            }
        }
        // What it does not make: SiLU, GELU without a bias, other types and depths, rows that are not
        // aligned. However many rows there are.
        let case = Case::of(dtype, [5, 24, 64]);
        for case in [
            Case { activation: Activation::Silu, ..case },
            Case { activation: Activation::GeluTanh, has_bias: false, ..case },
            Case { x: DType::F32, ..case },
            Case { weight: DType::F32, ..case },
            Case { target: DType::F32, ..case },
            Case { shape: [5, 24, 16], ..case },
            Case { shape: [5, 24, 72], ..case },
            Case { shape: [5, 20, 64], ..case },
        ] {
            check(card, case, false, &mut random);
        }
    }
    check(card, Case::of(DType::F32, [5, 24, 64]), false, &mut random);
}

/// A product in parts, of rows and of columns, as chunks and groups of heads make them.
fn check_parts(card: &Arc<CudaDevice<Cuda>>, dtype: DType, shape: [usize; 3]) {
    let mut random = Random::new(2);
    let [all_rows, all_columns, _] = shape;
    let case = Case::of(dtype, shape);
    let operands = case.operands(&mut random);
    let before = made();
    let whole = run_on(card.clone(), &operands, &|device, t| case.product(device, t));
    let rows = run_on(card.clone(), &operands, &|device, t| {
        for part in [0..1, 1..3, 3..all_rows / 2, all_rows / 2..all_rows] {
            let of = [t[0].slice(part.clone()), t[1].clone(), t[2].clone(), t[3].slice(part)];
            case.product(device, &of);
        }
    });
    assert!(whole[3] == rows[3], "{case:?}: rows");
    for part in [0..16, 16..64, 64..all_columns] {
        let mut operands = operands.clone();
        operands[3] = Operand::empty(dtype, &[all_rows, part.len()]);
        let some = run_on(card.clone(), &operands, &|device, t| {
            let of = [t[0].clone(), t[1].slice(part.clone()), t[2].slice(part.clone())];
            case.product(device, &[&of[..], &t[3..]].concat());
        });
        for (row, some) in some[3].chunks(part.len()).enumerate() {
            let whole = &whole[3][row * all_columns..][part.clone()];
            assert!(whole == some, "{case:?}: row {row}, columns {part:?}");
        }
    }
    assert_eq!(made(), before.map(|before| before + 1 + 4 + 3));
}

#[test]
#[ignore = "run by others"]
fn inside_products_are_the_cpus() {
    let Some(card) = emulated_card() else { return };
    check_products(&card);
}

#[test]
#[ignore = "run by others"]
fn inside_parts_have_the_bits_of_the_whole() {
    let Some(card) = emulated_card() else { return };
    for dtype in [DType::F16, DType::BF16] {
        check_parts(&card, dtype, [130, 96, 512]);
    }
}

/// The same on a real card, with products as large as models have them.
#[test]
fn on_this_machines_card() {
    let Some(card) = machine::card() else { return };
    let card = Arc::new(CudaDevice::new(card).unwrap());
    println!("products are made by {}", card.driver().products());
    check_products(&card);
    for dtype in [DType::F16, DType::BF16] {
        for shape in [[4000, 3072, 3072], [226, 1920, 7680], [700, 12_288, 3072]] {
            check_parts(&card, dtype, shape);
        }
    }
}

/// The proposal that is pinned refuses a product in a job.
#[test]
#[ignore = "run by others"]
fn inside_a_refusal_is_told() {
    let Some(card) = emulated_card() else { return };
    card.reserve(1 << 20).unwrap();
    let case = Case::of(DType::BF16, [2, 8, 1024]);
    let tensors = {
        let dry = Arena::record(256);
        let alloc = |arena: &Arena| -> Vec<Tensor> {
            let mut random = Random::new(3);
            let operands = case.operands(&mut random);
            operands.iter().map(|o| arena.alloc("t", o.dtype, &o.shape[..]).unwrap()).collect()
        };
        drop(alloc(&dry));
        let arena = Arena::replay(solve(&dry.into_trace().unwrap()));
        alloc(&arena)
    };
    case.product(&*card, &tensors);
    let Err(Error::Device { what, .. }) = card.finish() else { panic!("it made the product") };
    println!("{what}");
    // It is told once.
    card.finish().unwrap();
}

#[test]
#[ignore = "run by others"]
fn inside_it_is_said_what_makes_products() {
    if !is_inside() {
        return;
    }
    let card = Cuda::open(0).unwrap_or_else(|error| panic!("not opened: {error}"));
    println!("made by {}", card.products());
    let taken = memory_bed::taken(&card);
    println!("taken: {taken} bytes");
    // Whatever was tried is given back; the rest is the context, and what is known to be taken in it.
    assert_eq!(taken, (300 << 20) + card.overhead_bytes());
}

#[test]
fn products_are_the_cpus() {
    passes_inside("inside_products_are_the_cpus", &[]);
}

#[test]
fn parts_have_the_bits_of_the_whole() {
    passes_inside("inside_parts_have_the_bits_of_the_whole", &[]);
}

/// Whatever else is proposed first, of what makes right products and no other bits the first is taken.
#[test]
fn what_will_not_do_is_passed_over() {
    let first = [("BLAS_ALGORITHMS", "split reduces workspace narrow fails wrong few good")];
    passes_inside("inside_products_are_the_cpus", &first);
    let first = [("BLAS_ALGORITHMS", "few flat last good")];
    passes_inside("inside_parts_have_the_bits_of_the_whole", &first);
}

fn is_said(settings: &[(&str, &str)], expected: &[&str]) {
    let (passed, said) = inside("inside_it_is_said_what_makes_products", settings);
    let is_said = expected.iter().all(|part| said.contains(part));
    assert!(passed && is_said, "{settings:?}: {expected:?} in {said}");
}

#[test]
fn it_is_said_what_makes_products_and_why() {
    let (library, driver) = (library(), driver());
    let path = library.to_str().unwrap();
    let found = format!("cuBLASLt 13.1.0 ({path})");
    is_said(&[], &[&format!("made by {found}\n")]);
    let folders = [&driver, &library].map(|file| file.parent().unwrap().to_str().unwrap());
    let by_loader = [(VARIABLE, ""), ("LD_LIBRARY_PATH", &folders.join(":"))];
    is_said(&by_loader, &[&format!("made by {found}\n")]);

    let without = "vidfit's own kernels for bf16, bf16 with bias, bf16 with bias and GELU (asking";
    is_said(&[("BLAS_ONLY_F16", "1")], &[&format!("made by {found}; {without}")]);

    let own = |why: &str| format!("made by vidfit's own kernels ({why}");
    let off = "VIDFIT_CUBLASLT is off";
    is_said(&[(VARIABLE, "off")], &[&own(off)]);
    is_said(&[(VARIABLE, "OFF")], &[&own(off)]);
    // What is named is not done without.
    let old = format!("cuBLASLt 11.4.2 ({path}) is too old; vidfit needs 12.0 or newer");
    for (settings, why) in [
        ((VARIABLE, "/nowhere/libcublasLt.so"), "/nowhere/libcublasLt.so: cannot open"),
        ((VARIABLE, driver.to_str().unwrap()), "is not a cuBLASLt that vidfit knows: it has no"),
        (("BLAS_VERSION", "110402"), &*old),
    ] {
        let (passed, said) = inside("inside_it_is_said_what_makes_products", &[settings]);
        assert!(!passed && said.contains("VIDFIT_CUBLASLT names a library, but"), "{said}");
        assert!(said.contains(why), "{why} in {said}");
    }
    let absent = [(VARIABLE, "")];
    is_said(&absent, &[&own("libcublasLt.so.13: cannot open"), "`pip install nvidia-cublas-cu12`"]);
    is_said(
        &[("BLAS_CREATE", "1")],
        &[&own(&format!("{found}: starting it: CUBLAS_STATUS_NOT_INITIALIZED: the driver may"))],
    );
}

#[test]
fn it_is_said_why_algorithms_will_not_do() {
    for (ways, why) in [
        ("", "asking it for algorithms: CUBLAS_STATUS_NOT_SUPPORTED"),
        ("split reduces workspace", "none of its algorithms will do: sums are made in parts)"),
        ("narrow", "none of its algorithms will do: 1 rows, 8 columns, depth 64 are refused)"),
        ("fails", "161 rows, 640 columns, depth 512: CUBLAS_STATUS_NOT_SUPPORTED)"),
        ("wrong", "none of its algorithms will do: a product is "),
        ("few flat last", "none of its algorithms will do: bits depend on what else is computed)"),
    ] {
        is_said(&[("BLAS_ALGORITHMS", ways)], &["made by vidfit's own kernels (cuBLASLt 13", why]);
    }
}

#[test]
fn failures_say_what_to_do() {
    let (passed, said) = inside("inside_a_refusal_is_told", &[("BLAS_ALGORITHMS", "later")]);
    assert!(passed, "{said}");
    for part in [
        "cuBLASLt 13.1.0",
        "2 rows, 8 columns, depth 1024: CUBLAS_STATUS_NOT_SUPPORTED",
        "set VIDFIT_CUBLASLT=off to do without it",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // Less than the trial needs. The own kernels must not take over for that.
    let (_, said) = inside("inside_it_is_said_what_makes_products", &[]);
    let taken = said.split("taken: ").nth(1).unwrap().split(' ').next().unwrap();
    let full = (taken.parse::<u64>().unwrap() >> 10) + 512;
    let full = [("MEMORY_KIB", &*full.to_string())];
    let (passed, said) = inside("inside_it_is_said_what_makes_products", &full);
    assert!(!passed && said.contains("not opened: "), "{said}");
    assert!(said.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{said}");
    assert!(said.contains("(VIDFIT_CUBLASLT=off does without it)"), "{said}");
}
