use super::*;
use crate::transformer::TransformerConfig;

fn manifest() -> Manifest {
    TransformerConfig { num_layers: 2, ..TransformerConfig::default() }.manifest()
}

const Q: &str = "transformer.transformer_blocks.1.attn1.to_q";

/// A tensor's name and shape.
type Listed<'t> = (&'t str, &'t [usize]);

/// A listing of these tensors.
fn read(
    tensors: &[Listed<'_>],
    metadata: Option<&str>,
    is_lenient: bool,
) -> Result<Adaptation, LoraError> {
    let scalar = |name: &str| if name.contains("bad") { None } else { Some(3.0) };
    let listing = Listing { tensors: tensors.to_vec(), metadata, scalar: &scalar };
    adapt(&manifest(), &listing, is_lenient)
}

/// The two factors of `module`, for a weight of these lengths.
fn pair(module: &str, out: usize, rank: usize, inputs: usize) -> Vec<(String, Vec<usize>)> {
    vec![
        (format!("{module}.lora_A.weight"), vec![rank, inputs]),
        (format!("{module}.lora_B.weight"), vec![out, rank]),
    ]
}

fn read_owned(
    tensors: &[(String, Vec<usize>)],
    metadata: Option<&str>,
) -> Result<Adaptation, LoraError> {
    let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (&**name, &**shape)).collect();
    read(&tensors, metadata, false)
}

/// Every layer of the model, as a trainer that adapts all of them would name it.
#[test]
fn every_layer_is_found_by_its_path_and_by_its_flat_path() {
    let manifest = manifest();
    let layers: Vec<&WeightSpec> = manifest.weights().filter(|spec| can_change(spec)).collect();
    assert_eq!(layers.len(), 2 * 8 + 6);
    for spec in layers {
        let (out, inputs) = (spec.shape.rows(), spec.shape.columns());
        let module = names::module(spec);
        let flat = format!("lora_unet_{}", module.replace('.', "_"));
        for (name, format) in [
            (format!("transformer.{module}"), LoraFormat::Peft),
            (module.to_owned(), LoraFormat::Peft),
            (flat, LoraFormat::Kohya),
        ] {
            let found = read_owned(&pair(&name, out, 4, inputs), None).unwrap();
            assert_eq!(found.format, format, "{name}");
            let [update] = &found.updates[..] else { panic!("{found:?}") };
            assert_eq!((&update.key, update.rank, update.factor), (&spec.key, 4, 1.0), "{name}");
        }
    }
}

#[test]
fn factors_of_a_convolution_have_its_taps() {
    let tensors: [(&str, &[usize]); 2] = [
        ("transformer.patch_embed.proj.lora_A.weight", &[4, 16, 2, 2]),
        ("transformer.patch_embed.proj.lora_B.weight", &[1920, 4, 1, 1]),
    ];
    let found = read(&tensors, None, false).unwrap();
    assert_eq!(found.updates[0].key, "patch_embed.proj.weight");
}

#[test]
fn sats_own_names_are_those_of_its_exporter() {
    let layer = "model.diffusion_model.transformer.layers.1.attention";
    let parts = ["query_key_value.0", "query_key_value.1", "query_key_value.2", "dense.0"];
    let mut tensors = Vec::new();
    for part in parts {
        let (part, number) = part.split_once('.').unwrap();
        tensors.push((format!("{layer}.{part}.matrix_A.{number}"), vec![128, 1920]));
        tensors.push((format!("{layer}.{part}.matrix_B.{number}"), vec![1920, 128]));
    }
    let found = read_owned(&tensors, None).unwrap();
    assert_eq!(found.format, LoraFormat::Sat);
    let keys: Vec<&str> = found.updates.iter().map(|update| update.key.as_str()).collect();
    let expected = ["to_k", "to_out.0", "to_q", "to_v"]
        .map(|layer| format!("transformer_blocks.1.attn1.{layer}.weight"));
    assert_eq!(keys, expected);
    assert!(found.updates.iter().all(|update| update.factor == 1.0 / 128.0));
    assert!(found.updates.iter().all(|update| !update.a.contains("matrix_B")));
    assert!(found.warnings[0].contains("1/128"), "{:?}", found.warnings);
}

#[test]
fn alpha_over_rank_comes_from_wherever_it_stands() {
    let factors = pair(Q, 1920, 4, 1920);
    let factor = |metadata: &str| read_owned(&factors, Some(metadata)).unwrap().updates[0].factor;
    assert_eq!(factor(r#"{"transformer.r": 4, "transformer.lora_alpha": 2}"#), 0.5);
    assert_eq!(factor(r#"{"r": 4, "lora_alpha": 2, "alpha_pattern": {"to_q": 6}}"#), 1.5);
    assert_eq!(factor(r#"{"r": 4, "lora_alpha": 2, "alpha_pattern": {"q": 6}}"#), 0.5);
    assert_eq!(factor(r#"{"r": 4, "lora_alpha": 2, "alpha_pattern": {"^to_q": 6}}"#), 0.5);
    let whole = r#"{"r": 9, "rank_pattern": {"^transformer_blocks\\.1\\.attn1\\.to_q": 4}}"#;
    assert_eq!(factor(whole), 2.0);
    assert_eq!(factor(r#"{"r": 4, "lora_alpha": 2, "use_rslora": true}"#), 1.0);
    let mut with_alpha = factors.clone();
    with_alpha.push((format!("{Q}.alpha"), vec![]));
    let found = read_owned(&with_alpha, None).unwrap();
    assert!(found.has_alpha && found.warnings.is_empty());
    assert_eq!(found.updates[0].factor, 0.75);
    let silent = read_owned(&factors, None).unwrap();
    assert!(!silent.has_alpha && silent.warnings[0].contains(":0.5"), "{:?}", silent.warnings);
    assert!(silent.warnings[0].contains(":0.25"), "{:?}", silent.warnings);
}

#[test]
fn what_is_left_out_is_said() {
    let mut tensors = pair(Q, 1920, 4, 1920);
    tensors.push(("lora_te_text_model_layers_0.lora_down.weight".into(), vec![4, 8]));
    tensors.push((format!("{Q}.dora_scale"), vec![1920]));
    let found = read_owned(&tensors, None).unwrap();
    assert!(found.warnings[0].contains("text encoder"), "{:?}", found.warnings);
    assert!(found.warnings[1].contains("DoRA"), "{:?}", found.warnings);
    tensors.push(("transformer.other.lora_A.weight".into(), vec![4, 8]));
    let borrowed: Vec<_> = tensors.iter().map(|(name, shape)| (&**name, &**shape)).collect();
    let found = read(&borrowed, None, true).unwrap();
    assert!(found.warnings[0].contains("transformer.other"), "{:?}", found.warnings);
    assert_eq!(found.updates.len(), 1);
}

#[test]
fn each_thing_that_is_wrong_has_an_error_of_its_own() {
    let (a, b) = (format!("{Q}.lora_A.weight"), format!("{Q}.lora_B.weight"));
    let alpha = format!("{Q}.alpha");
    let bad = "transformer.transformer_blocks.0.attn1.to_q";
    let whole: [Listed<'_>; 2] = [(&a, &[4, 1920]), (&b, &[1920, 4])];
    let with = |more: (&'static str, &'static [usize])| [whole[0], whole[1], more];
    let cases: [(&[Listed<'_>], Option<&str>, &str); 17] = [
        (&[], None, "holds no LoRA"),
        (&[("lora_te_x.lora_down.weight", &[1, 2])], None, "none of its 1 tensors"),
        (&[whole[0]], None, "the factor B (up) is missing"),
        (&[whole[1]], None, "the factor A (down) is missing"),
        (&[(&alpha, &[])], None, "both of its factors is missing"),
        (&[whole[0], (&b, &[1920, 5])], None, "A has rank 4, B 5"),
        (&[(&a, &[0, 1920]), (&b, &[1920, 0])], None, "their rank is 0"),
        (&[(&a, &[]), whole[1]], None, "is no matrix"),
        (
            &[(&a, &[4, 3072]), (&b, &[3072, 4])],
            None,
            "for a model of width 3072 (CogVideoX-5b and 1.5); this one has 1920 (CogVideoX-2b)",
        ),
        (&[(&a, &[4, 640]), whole[1]], None, "make 1920×640"),
        (&with(("unet.x.lora_A.weight", &[1])), None, "1 tensor that this model has no place for"),
        (&with(("transformer_blocks.1.attn1.to_q.lora_A.weight", &[4, 1920])), None, "twice"),
        (&whole, Some("{"), "cannot be read"),
        (&whole, Some(r#"{"r": 8}"#), "the rank 8, and its factors have 4"),
        (&whole, Some(r#"{"r": 4, "lora_alpha": "x"}"#), "lora_alpha is"),
        (&whole, Some(r#"{"r": 4, "alpha_pattern": {".*q": 1}}"#), "regular expression"),
        (&whole, Some(r#"{"peft_type": "LOKR"}"#), "LOKR"),
    ];
    for (tensors, metadata, words) in cases {
        let error = read(tensors, metadata, false).unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
    }
    let scalar = |_: &str| Some(f64::NAN);
    let (a, b, alpha) =
        (format!("{bad}.lora_A.weight"), format!("{bad}.lora_B.weight"), format!("{bad}.alpha"));
    let tensors: Vec<(&str, &[usize])> = vec![(&a, &[4, 1920]), (&b, &[1920, 4]), (&alpha, &[])];
    let listing = Listing { tensors, metadata: None, scalar: &scalar };
    let error = adapt(&manifest(), &listing, true).unwrap_err().to_string();
    assert!(error.contains("not one finite number"), "{error}");
}
