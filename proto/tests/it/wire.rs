//! Everything is documented, every rpc has its own pair of messages, units are spelt as agreed, maps encode alike.

use std::collections::{BTreeMap, HashMap, HashSet};

use pointsman_proto::{FILE_DESCRIPTOR_SET, v1};
use prost::{DecodeError, Message as _};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::Type,
};

/// Field numbers of `google.protobuf.FileDescriptorProto` and its parts, of which source paths are made.
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const FILE_SERVICE: i32 = 6;
const MESSAGE_FIELD: i32 = 2;
const MESSAGE_NESTED: i32 = 3;
const MESSAGE_ENUM: i32 = 4;
const MESSAGE_ONEOF: i32 = 8;
const ENUM_VALUE: i32 = 2;
const SERVICE_METHOD: i32 = 2;

#[test]
fn everything_has_a_leading_comment() -> Result<(), DecodeError> {
    let mut names = 0;
    let mut missing = Vec::new();
    for file in own_files()? {
        let comments = leading_comments(&file);
        let declared = declarations(&file);
        names += declared.len();
        missing.extend(declared.into_iter().filter(|(path, _)| !comments.contains(path)).map(|(_, name)| name));
    }
    assert!(names > 700, "only {names} declarations were looked at");
    assert_eq!(missing, Vec::<String>::new(), "without a leading comment");
    Ok(())
}

#[test]
fn every_rpc_has_its_own_request_and_response() -> Result<(), DecodeError> {
    let mut rpcs = HashSet::new();
    for service in own_files()?.iter().flat_map(|file| &file.service) {
        for rpc in &service.method {
            let name = rpc.name();
            assert_eq!(rpc.input_type(), format!(".pointsman.v1.{name}Request"));
            assert_eq!(rpc.output_type(), format!(".pointsman.v1.{name}Response"));
            assert!(rpcs.insert(name.to_owned()), "{name} is the name of two rpcs");
        }
    }
    assert!(!rpcs.is_empty());
    Ok(())
}

#[test]
fn money_is_an_integer() -> Result<(), DecodeError> {
    let mut amounts = 0;
    for message in own_files()?.iter().flat_map(|file| &file.message_type) {
        for field in message.field.iter().filter(|field| field.name().contains("_usd")) {
            let name = format!("{}.{}", message.name(), field.name());
            assert!(name.contains("_usd_micros") || name.contains("_usd_nanos"), "{name} lacks its unit");
            assert_eq!(field.r#type(), Type::Int64, "{name}");
            amounts += 1;
        }
    }
    assert!(amounts > 0);
    Ok(())
}

#[test]
fn what_takes_long_or_is_large_streams() -> Result<(), DecodeError> {
    let mut found = Vec::new();
    for service in own_files()?.iter().flat_map(|file| &file.service) {
        for rpc in &service.method {
            if rpc.client_streaming() || rpc.server_streaming() {
                found.push((rpc.name().to_owned(), rpc.client_streaming(), rpc.server_streaming()));
            }
        }
    }
    found.sort();
    let expected = [
        ("ExportTraces", false, true),
        ("ImportTraces", true, false),
        ("InstallPolicy", true, false),
        ("RouteStream", false, true),
        ("StreamFeedback", true, true),
        ("Train", false, true),
    ];
    assert_eq!(found, expected.map(|(name, client, server)| (name.to_owned(), client, server)));
    Ok(())
}

#[test]
fn absent_is_not_zero_where_the_two_differ() -> Result<(), DecodeError> {
    let promote = |share| v1::PromoteRequest { version: "v".to_owned(), share, ..v1::PromoteRequest::default() };
    let back = |request: v1::PromoteRequest| v1::PromoteRequest::decode(request.encode_to_vec().as_slice());
    assert_eq!(back(promote(None))?.share, None);
    assert_eq!(back(promote(Some(0.0)))?.share, Some(0.0));
    let estimate = v1::Estimate { value: 0.0, lower: Some(0.0), upper: None };
    assert_eq!(v1::Estimate::decode(estimate.encode_to_vec().as_slice())?, estimate);
    let evaluate = v1::EvaluateRequest { delta: Some(0.0), ..v1::EvaluateRequest::default() };
    let evaluate = v1::EvaluateRequest::decode(evaluate.encode_to_vec().as_slice())?;
    assert_eq!((evaluate.delta, evaluate.held_out_fraction), (Some(0.0), None));
    Ok(())
}

/// A policy as it was stored and sent before it could be trained: version, kind, state and marks alone.
#[test]
fn a_policy_of_an_earlier_wire_is_read() -> Result<(), DecodeError> {
    let early = [0x0a, 1, b'b', 0x10, 2, 0x18, 1, 0x28, 7, 0x30, 5];
    let policy = v1::Policy::decode(early.as_slice())?;
    assert_eq!(
        (policy.version.as_str(), policy.kind(), policy.state()),
        ("b", v1::PolicyKind::Bandit, v1::PolicyState::Running)
    );
    assert_eq!((policy.updates, policy.feedback_mark), (7, 5));
    assert_eq!((policy.artifact_bytes, policy.predecessor.as_str()), (0, ""));
    assert!(policy.evaluation.is_none() && policy.training_report.is_none());
    assert_eq!(policy.encode_to_vec(), early);
    Ok(())
}

#[test]
fn a_stored_trace_comes_back_whole_and_encodes_alike() -> Result<(), DecodeError> {
    let tags = |names: [&str; 3]| -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), name.to_uppercase())).collect()
    };
    let trace = |tags| v1::Trace {
        format: 1,
        tags,
        features: Some(v1::Features {
            schema_hash: u64::MAX,
            index_deltas: vec![3, 0, 70_000],
            counts: vec![-1, 2, 1],
            ..v1::Features::default()
        }),
        ..v1::Trace::default()
    };
    let bytes = trace(tags(["a", "b", "tenant"])).encode_to_vec();
    assert_eq!(bytes, trace(tags(["tenant", "b", "a"])).encode_to_vec());
    assert_eq!(v1::Trace::decode(bytes.as_slice())?, trace(tags(["a", "b", "tenant"])));
    Ok(())
}

fn own_files() -> Result<Vec<FileDescriptorProto>, DecodeError> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)?;
    let own: Vec<_> = set.file.into_iter().filter(|file| file.package() == "pointsman.v1").collect();
    assert!(!own.is_empty(), "the descriptor set lacks pointsman.v1");
    Ok(own)
}

fn leading_comments(file: &FileDescriptorProto) -> HashSet<Vec<i32>> {
    file.source_code_info
        .iter()
        .flat_map(|info| &info.location)
        .filter(|location| !location.leading_comments().trim().is_empty())
        .map(|location| location.path.clone())
        .collect()
}

/// Source path and readable name of everything the file declares. Map entries are left out: nobody wrote them.
fn declarations(file: &FileDescriptorProto) -> HashMap<Vec<i32>, String> {
    let mut found = HashMap::new();
    for (path, message) in numbered(&[FILE_MESSAGE], &file.message_type) {
        in_message(path, "", message, &mut found);
    }
    for (path, item) in numbered(&[FILE_ENUM], &file.enum_type) {
        in_enum(path, "", item, &mut found);
    }
    for (path, service) in numbered(&[FILE_SERVICE], &file.service) {
        in_service(path, service, &mut found);
    }
    found
}

fn in_message(path: Vec<i32>, parent: &str, message: &DescriptorProto, found: &mut HashMap<Vec<i32>, String>) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    let name = format!("{parent}{}", message.name());
    let inside = format!("{name}.");
    for (path, field) in numbered(&below(&path, MESSAGE_FIELD), &message.field) {
        found.insert(path, format!("{inside}{}", field.name()));
    }
    for (path, oneof) in numbered(&below(&path, MESSAGE_ONEOF), &message.oneof_decl) {
        // an `optional` scalar makes a oneof of its own that nobody wrote
        if !oneof.name().starts_with('_') {
            found.insert(path, format!("{inside}{}", oneof.name()));
        }
    }
    for (path, nested) in numbered(&below(&path, MESSAGE_NESTED), &message.nested_type) {
        in_message(path, &inside, nested, found);
    }
    for (path, item) in numbered(&below(&path, MESSAGE_ENUM), &message.enum_type) {
        in_enum(path, &inside, item, found);
    }
    found.insert(path, name);
}

fn in_enum(path: Vec<i32>, parent: &str, item: &EnumDescriptorProto, found: &mut HashMap<Vec<i32>, String>) {
    let name = format!("{parent}{}", item.name());
    for (path, value) in numbered(&below(&path, ENUM_VALUE), &item.value) {
        found.insert(path, format!("{name}.{}", value.name()));
    }
    found.insert(path, name);
}

fn in_service(path: Vec<i32>, service: &ServiceDescriptorProto, found: &mut HashMap<Vec<i32>, String>) {
    for (path, rpc) in numbered(&below(&path, SERVICE_METHOD), &service.method) {
        found.insert(path, format!("{}.{}", service.name(), rpc.name()));
    }
    found.insert(path, service.name().to_owned());
}

fn below(path: &[i32], number: i32) -> Vec<i32> {
    let mut below = path.to_vec();
    below.push(number);
    below
}

fn numbered<'a, T>(path: &[i32], items: &'a [T]) -> impl Iterator<Item = (Vec<i32>, &'a T)> {
    (0..).zip(items).map(move |(number, item)| (below(path, number), item))
}
