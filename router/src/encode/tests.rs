use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::request::{AnswerKind, Prompt};

fn request(texts: &[&str]) -> Request {
    let message = |text: &&str| Message { role: Role::User, content: (*text).to_owned() };
    Request {
        prompt: Arc::new(Prompt {
            system: String::new(),
            messages: texts.iter().map(message).collect(),
            temperature: None,
            stop: Vec::new(),
            schema: None,
            caller_ref: None,
        }),
        kind: AnswerKind::Text,
        answer_pattern: None,
        task_type: None,
        tags: BTreeMap::new(),
        embedding: Vec::new(),
        max_cost: None,
        answer_value: None,
        output_tokens_max: None,
        quality_threshold: None,
        calls_max: None,
        models_allowed: Vec::new(),
        models_denied: Vec::new(),
        key: None,
        deadline: None,
    }
}

fn features(secret: u64, text: &str) -> Features {
    Encoder::new(secret).encode(&request(&[text]))
}

#[test]
fn a_known_text_has_known_grams() {
    // " ab ab ": words ab, ab, (ab ab); 5 + 4 + 3 character n-grams, two of them twice (" ab", "ab ").
    let counts = features(1, "Ab \n ab").text;
    let total: i32 = counts.iter().map(|c| i32::from(c.count.abs())).sum();
    assert_eq!(total, 3 + 5 + 4 + 3);
    assert_eq!(counts.iter().filter(|c| c.count.abs() == 2).count(), 4, "{counts:?}");
}

#[test]
fn another_secret_moves_every_count_to_another_bucket_and_changes_the_schema() {
    let text = "Which of these is prime? 7, 8 or 9";
    let (one, two) = (features(1, text), features(2, text));
    assert_ne!(one.text, two.text);
    assert_ne!(one.schema, two.schema);
    let sorted = |f: &Features| {
        let mut counts: Vec<i16> = f.text.iter().map(|c| c.count).collect();
        counts.sort_unstable();
        counts
    };
    assert_eq!(sorted(&one), sorted(&two));
    assert_eq!(one, features(1, text));
}

#[test]
fn a_permutation_hits_every_bucket_once() {
    let permutation = Permutation::new(0x1234_5678_9abc_def0);
    let mut seen = vec![false; TEXT_BUCKETS / 2];
    (0..=WITHIN).for_each(|bucket| seen[usize::from(permutation.apply(bucket))] = true);
    assert!(seen.iter().all(|hit| *hit));
}

#[test]
fn hashes_spread_evenly_over_the_buckets() {
    let mut buckets = vec![0_u32; 256];
    let mut signs = 0_i64;
    let text: String = (0..6_000).map(|i| format!("{} ", i * 7_919)).collect();
    char_grams(text.as_bytes(), &mut |hash| {
        buckets[(hash >> 56) as usize] += 1;
        signs += 1 - 2 * ((hash >> 47) & 1) as i64;
    });
    let total: u32 = buckets.iter().sum();
    let most = buckets.iter().max().copied().unwrap();
    assert!(most < total / 256 * 2, "{most} of {total}");
    assert!(signs.unsigned_abs() < u64::from(total / 20), "{signs}");
}

#[test]
fn a_tiny_prompt_has_features() {
    for text in ["a", "?", "7", "é", "日"] {
        assert!(!features(3, text).text.is_empty(), "{text}");
    }
    assert!(features(3, " \n").text.is_empty());
}

#[test]
fn of_a_long_text_only_the_ends_count() {
    let long = |middle: &str| format!("{}{}{}", "head ".repeat(900), middle.repeat(5_000), " tail".repeat(900));
    let (one, two) = (features(1, &long("x")), features(1, &long("y")));
    assert_eq!(one, two);
    assert_ne!(one.text, features(1, &format!("other {}", long("x"))).text);
    // The cut does not depend on where one message ends and the next begins.
    let split = Encoder::new(1).encode(&request(&[
        "head ".repeat(900).trim_end(),
        &"x".repeat(5_000),
        "tail ".repeat(900).trim_end(),
    ]));
    assert_eq!(
        split.text,
        features(
            1,
            &format!(
                "{}\n{}\n{}",
                "head ".repeat(900).trim_end(),
                "x".repeat(5_000),
                "tail ".repeat(900).trim_end()
            )
        )
        .text
    );
}

#[test]
fn tags_and_system_text_are_apart() {
    let mut tagged = request(&["hello"]);
    tagged.tags.insert("tenant".into(), "a".into());
    let tags = Encoder::new(1).encode(&tagged).tags;
    assert_eq!(tags.len(), 1);
    Arc::make_mut(&mut tagged.prompt).system = "tenant=a".into();
    let both = Encoder::new(1).encode(&tagged).tags;
    assert_eq!(both.len(), 2);
    assert!(both.is_sorted());
    assert!(both.contains(&tags[0]));
}

#[test]
fn a_sketch_keeps_angles() {
    let wave = |phase: f32| (0..1_536).map(|i| (i as f32 * 0.1 + phase).sin()).collect::<Vec<_>>();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let (one, near, across) = (sketch(&wave(0.0)), sketch(&wave(0.2)), sketch(&wave(std::f32::consts::FRAC_PI_2)));
    assert!((dot(&one, &one) - 1.0).abs() < 1e-5);
    assert!(dot(&one, &near) > 0.95);
    assert!(dot(&one, &across).abs() < 0.25);
    assert!(sketch(&[]).is_empty() && sketch(&[0.0; 9]).is_empty());
}

#[test]
fn surface_statistics_tell_kinds_of_text_apart() {
    let prose = surface("What is the capital of France?", 30);
    let code = surface("fn f(x: &[u8]) -> u8 { x[0] + x[1]; }", 37);
    let quiz = surface("Which?\nA. one\nB) two\n C: three\n", 32);
    assert!(code[2] > 0.9 && prose[2] < 0.1);
    assert!(quiz[6] > prose[6] && quiz[4] > prose[4]);
    assert!(surface("été", 5)[7] > 0.9);
    assert!(surface("", 0).iter().all(|x| x.is_finite()));
}

#[test]
fn the_table_of_task_types_holds_for_typical_texts() {
    let check = |text: &str, expected: &str| {
        let features = features(1, text);
        assert_eq!(task::infer(&features).as_str(), expected, "{text}: {:?}", features.surface);
    };
    check("What is the capital of France?", task::SIMPLE_QUERY);
    check("Translate 'good morning' into Czech.", task::SIMPLE_QUERY);
    check("Why does the moon show phases? Explain.\nA. shadow\nB. angle\nC. clouds", task::COMPLEX_REASONING);
    check(&"A train leaves the station with a certain speed. ".repeat(12), task::COMPLEX_REASONING);
    check("Is this valid?\n{\n  \"id\": 17,\n  \"price\": [1, 2],\n  \"unit\": {}\n}\n", task::DATA_VALIDATION);
    check("Check the sums: 1204 2210 3414; 991 1002 1993; 12 13 25", task::DATA_VALIDATION);
}

proptest! {
    #[test]
    fn any_text_encodes_ascending_and_leaves_the_table_clean(one in ".{0,300}", two in "\\PC{0,300}", times in 1_usize..60) {
        let two = two.repeat(times);
        let alone = std::thread::scope(|s| s.spawn(|| features(5, &two)).join().unwrap());
        features(5, &one);
        let after = features(5, &two);
        prop_assert!(after.text.windows(2).all(|w| w[0].bucket < w[1].bucket));
        prop_assert!(after.text.iter().all(|c| c.count != 0));
        prop_assert!(after.surface.iter().all(|x| x.abs() <= 1.0));
        prop_assert_eq!(after, alone);
    }

    #[test]
    fn the_ascii_path_and_the_other_one_agree(text in "[ -~\\t\\n\\r]{0,200}") {
        let run = |unicode: bool| {
            let (mut folded, mut hashes) = (Vec::new(), Vec::new());
            let mut add = |hash| hashes.push(hash);
            if unicode {
                fold_unicode(&text, &mut folded, &mut Words::new(), &mut add);
            } else {
                fold_ascii(text.as_bytes(), &mut folded, &mut Words::new(), &mut add);
            }
            (folded, hashes)
        };
        prop_assert_eq!(run(true), run(false));
    }

    #[test]
    fn the_ends_never_split_a_character(texts in prop::collection::vec("[aé日🙂]{0,4000}", 1..4)) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let whole = texts.join("\n");
        let request = request(&texts);
        let kept = ends(&request.prompt.messages);
        if whole.len() <= 2 * END_BYTES {
            prop_assert_eq!(kept.as_ref(), whole.as_str());
        } else {
            prop_assert!(kept.len() <= 2 * END_BYTES + 1);
            prop_assert!(kept.len() >= 2 * END_BYTES - 6);
            let same = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
            prop_assert!(same(&kept, &whole) >= END_BYTES - 3);
            let back = |text: &str| text.chars().rev().collect::<String>();
            prop_assert!(same(&back(&kept), &back(&whole)) >= END_BYTES - 3);
        }
    }
}
