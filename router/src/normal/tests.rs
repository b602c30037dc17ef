use proptest::prelude::*;

use super::*;

fn label(text: &str) -> Option<String> {
    clear(normalise(text, &AnswerKind::Label { allowed: Vec::new() }, None))
}

fn clear(form: Option<NormalForm>) -> Option<String> {
    form.map(|form| match form {
        NormalForm::Clear(text) => text,
        NormalForm::Number(_) | NormalForm::Hashed(_) => panic!("not clear: {form:?}"),
    })
}

fn check_label(input: &str, expected: &str) {
    assert_eq!(label(input).unwrap_or_default(), expected, "{input:?}");
}

#[test]
fn labels_lose_what_surrounds_them_and_nothing_else() {
    for spelling in [
        "B",
        " b\n",
        "(B)",
        "B)",
        "(B",
        "[b].",
        "\"B.\"",
        "“B”",
        "**B**",
        "**(B).**",
        "`B`",
        "Ｂ",
        "B。",
        "Answer: B",
        "the answer is (B).",
        "The answer is: **B**",
        "**Answer:** B",
        "**Answer**: B",
        "__The answer is__ B",
        "Answer: the answer is B",
        "***B***",
        "```\nB\n```",
    ] {
        check_label(spelling, "b");
    }
    check_label("(a) or (b)", "(a) or (b)");
    check_label("\"a\" or \"b\"", "\"a\" or \"b\"");
    check_label("*a* or *b*", "*a* or *b*");
    check_label("f(x)", "f(x)");
    check_label("New\u{a0} \tYork", "new york");
    check_label("STRASSE", "strasse");
    check_label("Straße", "strasse");
    check_label("ΟΔΟΣ", &fold("οδος"));
    check_label("answers: b", "answers: b");
    check_label("the answer isn't b", "the answer isn't b");
    check_label("-1", "-1");
    for empty in ["", " ", "...", "()", "**", "\"\"", "Answer:", "\u{200b}"] {
        check_label(empty, "");
    }
}

#[test]
fn only_allowed_labels_vote() {
    let kind = AnswerKind::Label { allowed: vec!["Yes.".into(), "(No)".into()] };
    assert_eq!(clear(normalise("Answer: **YES**", &kind, None)).as_deref(), Some("yes"));
    assert_eq!(normalise("yes, because", &kind, None), None);
    assert_eq!(normalise("maybe", &kind, None), None);
}

fn check_number(input: &str, expected: Option<f64>) {
    let form = normalise(input, &AnswerKind::Number { tolerance: 1e-6 }, None);
    assert_eq!(form, expected.map(NormalForm::Number), "{input:?}");
}

#[test]
fn numbers_are_parsed_whole_or_not_at_all() {
    for (input, expected) in [
        ("42", 42.0),
        ("= 42.", 42.0),
        ("**42**", 42.0),
        ("$1,234,567.50", 1_234_567.5),
        ("1 234", 1_234.0),
        ("1\u{202f}234", 1_234.0),
        ("1'000", 1_000.0),
        ("50 %", 50.0),
        ("5 €", 5.0),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("\u{2212}3", -3.0),
        ("+3", 3.0),
        (".5", 0.5),
        ("1.5E-3", 0.0015),
        ("-0", 0.0),
        ("４２", 42.0),
        ("=(7)", 7.0),
    ] {
        check_number(input, Some(expected));
    }
    for input in [
        "",
        "x",
        "42 apples",
        "about 42",
        "3,14",
        "1,23,456",
        "1.234.567",
        "1e999",
        "nan",
        "inf",
        "10²",
        "1/2",
        "½",
        "--5",
        "-+5",
        "5-",
        "1e",
        "e5",
        ",5",
        "1,",
        "0x10",
        "$",
        "%",
        "1 2",
    ] {
        check_number(input, None);
    }
}

#[test]
fn a_pattern_extracts_or_there_is_no_vote() {
    let pattern = Regex::new(r"(?i)answer is \(?([A-J])\)?").unwrap();
    let kind = AnswerKind::Label { allowed: Vec::new() };
    assert_eq!(clear(normalise("So the answer is (C), not D.", &kind, Some(&pattern))).as_deref(), Some("c"));
    assert_eq!(normalise("C", &kind, Some(&pattern)), None);
}

fn json(text: &str) -> Option<String> {
    clear(normalise(text, &AnswerKind::Json { schema: None }, None))
}

#[test]
fn json_has_one_spelling() {
    let canonical = r#"{"a":[1,2.5,null,"X y"],"b":{"c":true,"d":-3}}"#;
    for spelling in [
        canonical,
        r#" {"b": {"d": -3.0, "c": true}, "a": [1.0, 25e-1, null, "X y"]} "#,
        "```json\n{\"b\":{\"d\":-3,\"c\":true},\"a\":[1,2.5,null,\"X\\u0020y\"]}\n```",
    ] {
        assert_eq!(json(spelling).as_deref(), Some(canonical), "{spelling}");
    }
    assert_eq!(json("```\n5\n```").as_deref(), Some("5"));
    assert_eq!(json("-0.0").as_deref(), Some("0"));
    assert_eq!(json("18446744073709551615").as_deref(), Some("18446744073709551615"));
    for bad in ["", "null", "{", "here: {}", "{} {}", "NaN"] {
        assert_eq!(json(bad), None, "{bad}");
    }
}

#[test]
fn equal_within_tolerance_and_across_hashes() {
    let number = NormalForm::Number;
    assert!(same(&number(1_000_000.0), &number(1_000_000.9), 1e-6, 0));
    assert!(!same(&number(1_000_000.0), &number(1_000_002.0), 1e-6, 0));
    assert!(same(&number(0.0), &number(0.0), 0.0, 0) && !same(&number(0.0), &number(1e-9), 1e-6, 0));
    let text = NormalForm::Clear("a".into());
    assert!(same(&text.hashed(7), &text, 0.0, 7) && !same(&text.hashed(8), &text, 0.0, 7));
    assert!(!same(&text, &number(1.0), 1.0, 0));
}

fn any_kind() -> impl Strategy<Value = AnswerKind> {
    prop_oneof![
        Just(AnswerKind::Label { allowed: Vec::new() }),
        Just(AnswerKind::Number { tolerance: 1e-6 }),
        Just(AnswerKind::Json { schema: None }),
        Just(AnswerKind::Text),
    ]
}

/// Texts rich in what the normalisation looks at.
fn any_answer() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,6}",
        "[-+=$€%0-9.,e ]{1,8}",
        "[(){}\\[\\]\"'“”*_`~. \n]{1,4}",
        Just("answer:".to_owned()),
        Just("The answer is ".to_owned()),
        "\\{\"[ab]\": ?[0-9]{1,3}(\\.[0-9])?\\}",
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn normalising_twice_is_normalising_once(text in any_answer(), kind in any_kind()) {
        if let Some(form) = normalise(&text, &kind, None) {
            let spelled = match &form {
                NormalForm::Clear(text) => text.clone(),
                NormalForm::Number(x) => x.to_string(),
                NormalForm::Hashed(_) => unreachable!(),
            };
            prop_assert_eq!(normalise(&spelled, &kind, None), Some(form));
        }
    }

    #[test]
    fn any_finite_number_is_read_back(x in proptest::num::f64::NORMAL | proptest::num::f64::ZERO) {
        let form = normalise(&x.to_string(), &AnswerKind::Number { tolerance: 0.0 }, None);
        prop_assert_eq!(form, Some(NormalForm::Number(x)));
    }

    #[test]
    fn what_is_stored_compares_as_before(a in any_answer(), b in any_answer(), kind in any_kind(), secret: u64) {
        if let (Some(a), Some(b)) = (normalise(&a, &kind, None), normalise(&b, &kind, None)) {
            for (x, y) in [(&a, &b), (&a, &a)] {
                let before = same(x, y, 1e-6, secret);
                let (sx, sy) = (x.stored(kind.name(), secret), y.stored(kind.name(), secret));
                prop_assert_eq!(same(&sx, &sy, 1e-6, secret), before);
                prop_assert_eq!(same(&sx, y, 1e-6, secret), before);
                prop_assert_eq!(same(x, &sy, 1e-6, secret), before);
            }
        }
    }
}
