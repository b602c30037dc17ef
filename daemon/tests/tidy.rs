//! The house rules that no compiler holds: which crate may use which, the order of modules, sizes, the folders at the
//! top, where versions stand, what no file may say.
//!
//! Every rule is a pure function from what was read to the faults found; `mod rules` at the end shows of each that it
//! can fail. A rule that is broken lists all its faults at once. To change a rule, change its table here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which crate of ours may use which, and in which role.
const EDGES: [(&str, &str, DependencyKind); 6] = [
    ("pointsman-client", "pointsman-proto", DependencyKind::Normal),
    ("pointsman-learner", "pointsman-router", DependencyKind::Normal),
    ("pointsman-daemon", "pointsman-proto", DependencyKind::Normal),
    ("pointsman-daemon", "pointsman-router", DependencyKind::Normal),
    ("pointsman-daemon", "pointsman-learner", DependencyKind::Normal),
    ("pointsman-daemon", "pointsman-client", DependencyKind::Development),
];

/// What a crate must not use, not even in tests; a trailing `*` stands for any ending.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("pointsman-router", &["tonic*", "prost*", "rusqlite", "linfa*", "reqwest"]),
    ("pointsman-learner", &["tokio*", "tonic*", "prost*", "rusqlite", "reqwest"]),
    ("pointsman-client", &["rusqlite", "linfa*"]),
];

const CRATES: [&str; 5] = ["client", "daemon", "learner", "proto", "router"];

/// Crates whose modules import only what stands above them in `lib.rs`.
const ORDERED: [&str; 3] = ["router", "learner", "daemon"];

const LINES_MAX: usize = 500;

const TOP_FOLDERS: [&str; 9] =
    [".cargo", ".ci", "client", "daemon", "data", "learner", "proto", "router", "scripts"];
const TOP_FILES: [&str; 10] = [
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
];
/// Never part of the repository, see `.gitignore`.
const IGNORED: [&str; 7] = [".git", ".venv", "__pycache__", "node_modules", "pointsman-state", "stubs", "target"];

/// Names that say nothing about what a file holds.
const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "manager", "util", "utils"];

/// Folders of somebody's machine, spelt in pieces so that this file passes its own rule.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/", "work"), concat!("/", "root"), concat!("/", "home"), concat!("/", "Users")];

const DEPENDENCY_SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn crates_use_only_what_they_may() {
    let edges = edges(&metadata());
    assert!(edges.len() > 20, "only {} dependencies were looked at", edges.len());
    let mut faults = undrawn_edges(&edges);
    faults.extend(forbidden_dependencies(&edges));
    report("crate edges", &faults);
}

#[test]
fn modules_import_only_what_stands_above_them() {
    let mut faults = Vec::new();
    for name in ORDERED {
        let src = root().join(name).join("src");
        let order = declared_modules(&read(&src.join("lib.rs")));
        for file in rust_files(&src) {
            let path = parts(&src, &file);
            let Some(place) = ModulePlace::of(&path) else { continue };
            let below = imports_from_below(&order, &place, &without_tests(&read(&file)));
            faults.extend(below.iter().map(|module| format!("{name}/src/{}: imports {module}", path.join("/"))));
        }
    }
    report("module order", &faults);
}

#[test]
fn files_are_short_named_and_explained() {
    let mut faults = Vec::new();
    let files = rust_files(&root());
    assert!(files.len() > 50, "only {} files were looked at", files.len());
    for file in files {
        let path = parts(&root(), &file);
        let file_faults = shape_faults(&path, &read(&file));
        faults.extend(file_faults.into_iter().map(|fault| format!("{}: {fault}", path.join("/"))));
    }
    report("shape of files", &faults);
}

#[test]
fn the_top_level_is_fixed() {
    let mut entries = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.file_type().unwrap().is_dir()));
    }
    let mut faults = stray_entries(&entries);
    for name in CRATES {
        if !root().join(name).join("README.md").is_file() {
            faults.push(format!("{name}/README.md is missing: it is the guide to the crate"));
        }
    }
    report("top level", &faults);
}

#[test]
fn no_file_names_a_machine() {
    let mut files: Vec<PathBuf> = TOP_FILES.iter().map(|name| root().join(name)).collect();
    for folder in TOP_FOLDERS {
        files.extend(all_files(&root().join(folder)));
    }
    let mut faults = Vec::new();
    for file in files {
        // What is not UTF-8 text is data.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let path = parts(&root(), &file).join("/");
        faults.extend(machine_paths(&text).into_iter().map(|line| format!("{path}:{line}")));
    }
    report("machine paths", &faults);
}

#[test]
fn versions_stand_in_one_table_and_each_is_explained() {
    let workspace = table(&root().join("Cargo.toml"));
    let declared = dependency_names(&workspace, &["workspace", "dependencies"]);
    assert!(declared.len() > 20, "only {} dependencies were looked at", declared.len());
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for name in CRATES {
        let manifest = table(&root().join(name).join("Cargo.toml"));
        faults.extend(own_versions(&manifest).into_iter().map(|fault| format!("{name}/Cargo.toml: {fault}")));
        for section in DEPENDENCY_SECTIONS {
            used.extend(dependency_names(&manifest, &[section]));
        }
    }
    faults.extend(
        declared.difference(&used).map(|name| format!("{name} stands in the workspace, no crate uses it")),
    );
    let external = declared.iter().filter(|name| !name.starts_with("pointsman-"));
    faults.extend(unexplained(external, &read(&root().join("ARCHITECTURE.md"))));
    report("dependencies", &faults);
}

#[test]
fn no_figure_of_the_readme_is_missing() {
    let readme = read(&root().join("README.md"));
    let missing = readme.lines().filter(|line| line.contains("(FIGURE)")).map(str::to_owned);
    report("measured figures", &missing.collect::<Vec<_>>());
}

fn report(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}: {} faults\n  {}", faults.len(), faults.join("\n  "));
}

// Reading. A test that cannot read the tree fails at once.

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    let read = MetadataCommand::new().manifest_path(manifest).no_deps().exec();
    read.unwrap_or_else(|error| unreadable("cargo metadata", &error))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| unreadable(&file.display().to_string(), &error))
}

fn table(file: &Path) -> toml::Table {
    read(file).parse().unwrap_or_else(|error| unreadable(&file.display().to_string(), &error))
}

#[expect(clippy::panic, reason = "a test")]
fn unreadable(what: &str, error: &dyn std::error::Error) -> ! {
    panic!("{what} cannot be read: {error}")
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            files.push(path);
        } else if !IGNORED.iter().any(|name| entry.file_name() == *name) {
            files.extend(all_files(&path));
        }
    }
    files.sort();
    files
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = all_files(folder);
    files.retain(|file| file.extension().is_some_and(|ending| ending == "rs"));
    files
}

fn parts(base: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(base).unwrap_or(file);
    inside.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
}

// Crate edges.

/// One dependency: who, on what, in which role.
type Edge = (String, String, DependencyKind);

fn edges(metadata: &Metadata) -> Vec<Edge> {
    let packages = metadata.packages.iter();
    packages
        .flat_map(|package| {
            package.dependencies.iter().map(|dep| (package.name.to_string(), dep.name.clone(), dep.kind))
        })
        .collect()
}

/// Edges between crates of ours that [`EDGES`] does not draw.
fn undrawn_edges(edges: &[Edge]) -> Vec<String> {
    let ours = edges.iter().filter(|(_, to, _)| to.starts_with("pointsman-"));
    ours.filter(|(from, to, kind)| !EDGES.contains(&(from, to, *kind)))
        .map(|(from, to, kind)| format!("{from} must not use {to} ({kind})"))
        .collect()
}

fn forbidden_dependencies(edges: &[Edge]) -> Vec<String> {
    let forbidden = |from: &str, to: &str| {
        let patterns = FORBIDDEN.iter().filter(|(name, _)| *name == from).flat_map(|(_, patterns)| *patterns);
        patterns.into_iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => to.starts_with(start),
            None => to == *pattern,
        })
    };
    let hits = edges.iter().filter(|(from, to, _)| forbidden(from, to));
    hits.map(|(from, to, _)| format!("{from} must not use {to}")).collect()
}

// Module order.

/// Where a source file stands: its module right under the crate, and how many `super::` lead to the crate.
struct ModulePlace {
    top: String,
    depth: usize,
}

impl ModulePlace {
    /// Of a path inside `src`; `None` for the crate's own roots and for files of tests.
    fn of(path: &[String]) -> Option<Self> {
        let (file, folders) = path.split_last()?;
        let stem = file.strip_suffix(".rs")?;
        if stem == "tests" || folders.iter().any(|folder| folder == "tests" || folder == "bin") {
            return None;
        }
        let Some(top) = folders.first() else {
            return (stem != "lib" && stem != "main").then(|| Self { top: stem.to_owned(), depth: 1 });
        };
        Some(Self { top: top.clone(), depth: folders.len() + usize::from(stem != "mod") })
    }
}

/// The modules that a `lib.rs` declares, in its order.
fn declared_modules(lib: &str) -> Vec<String> {
    let names = lib.lines().filter_map(|line| {
        let (seen, name) = line.trim().strip_suffix(';')?.rsplit_once("mod ")?;
        (seen.is_empty() || seen.starts_with("pub")).then(|| name.to_owned())
    });
    names.collect()
}

/// Modules that a file names through `crate::` (or enough `super::`) although they do not stand above its own.
fn imports_from_below(order: &[String], place: &ModulePlace, code: &str) -> BTreeSet<String> {
    let position = |name: &str| order.iter().position(|module| module == name);
    let Some(own) = position(&place.top) else {
        return BTreeSet::from([format!("{}, which lib.rs does not declare", place.top)]);
    };
    let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut named = names_after(&code, "crate::");
    named.extend(names_after(&code, &"super::".repeat(place.depth)));
    named.retain(|name| position(name).is_some_and(|at| at > own));
    named
}

/// The first names after every occurrence of a path's beginning, through one level of braces.
fn names_after(code: &str, beginning: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(beginning) {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            continue;
        }
        let rest = code.get(at + beginning.len()..).unwrap_or_default();
        match rest.strip_prefix('{') {
            None => names.extend(identifier(rest)),
            Some(list) => names.extend(first_level(list).iter().filter_map(|item| identifier(item.trim_start()))),
        }
    }
    names
}

/// The items of a brace's inside, cut at the commas of its own level.
fn first_level(list: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut depth = 0_usize;
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            other => {
                depth = if other == '{' { depth + 1 } else { depth - usize::from(other == '}') };
                item.push(other);
            }
        }
    }
    items.push(item);
    items
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Source without its `#[cfg(test)]` items.
fn without_tests(source: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line);
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        // The item ends with its first line when that needs no block, else where a brace closes at its indentation.
        let mut at_head = true;
        for inside in lines.by_ref() {
            if inside == end || (at_head && (inside.ends_with([';', ',']) || inside.ends_with("{}"))) {
                break;
            }
            at_head &= inside.trim_start().starts_with('#');
        }
    }
    kept.join("\n")
}

// Shape of files.

fn shape_faults(path: &[String], text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    // A sibling tests.rs needs no page: the module it tests has one.
    let is_sibling = path.last().is_some_and(|file| file == "tests.rs");
    if !is_sibling && !text.starts_with("//!") && !text.starts_with("#![doc") {
        faults.push("does not open with //!".to_owned());
    }
    let is_test = path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "benches");
    let lines = without_tests(text).lines().count();
    if !is_test && lines > LINES_MAX {
        faults.push(format!("has {lines} lines that are not tests, at most {LINES_MAX}"));
    }
    for part in path {
        let name = part.strip_suffix(".rs").unwrap_or(part);
        if EMPTY_NAMES.contains(&name) {
            faults.push(format!("{name} says nothing about what it holds"));
        }
    }
    faults
}

fn stray_entries(entries: &[(String, bool)]) -> Vec<String> {
    let wanted = |name: &str, is_folder: bool| {
        if is_folder { TOP_FOLDERS.contains(&name) } else { TOP_FILES.contains(&name) }
    };
    let stray = entries.iter().filter(|(name, is_folder)| {
        let name = name.as_str();
        !IGNORED.contains(&name) && !wanted(name, *is_folder)
    });
    stray.map(|(name, _)| format!("{name} does not belong at the top")).collect()
}

/// Lines (from 1, with the line itself) that name a folder of a machine.
fn machine_paths(text: &str) -> Vec<String> {
    let is_path = |line: &str, at: usize, path: &str| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + path.len()..).and_then(|text| text.chars().next());
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-/})]*~".contains(c))
            && after.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-')
    };
    let names_one = |line: &str| {
        MACHINE_PATHS.iter().any(|path| line.match_indices(path).any(|(at, _)| is_path(line, at, path)))
    };
    let lines = text.lines().enumerate().filter(|(_, line)| names_one(line));
    lines.map(|(i, line)| format!("{}: {}", i + 1, line.trim())).collect()
}

// Dependencies.

fn dependency_names(manifest: &toml::Table, path: &[&str]) -> BTreeSet<String> {
    let mut table = Some(manifest);
    for key in path {
        table = table.and_then(|table| table.get(*key)).and_then(toml::Value::as_table);
    }
    table.into_iter().flat_map(toml::Table::keys).cloned().collect()
}

/// Dependencies of a member that do not take their version from the workspace.
fn own_versions(manifest: &toml::Table) -> Vec<String> {
    let mut faults = Vec::new();
    for section in DEPENDENCY_SECTIONS {
        let entries = manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten();
        for (name, value) in entries {
            if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                faults.push(format!("{name} has a version of its own"));
            }
        }
    }
    faults
}

/// Dependencies without a table row or list entry of their own that begins with their name in backticks.
fn unexplained<'a>(names: impl Iterator<Item = &'a String>, page: &str) -> Vec<String> {
    let rows: BTreeMap<&str, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `").or_else(|| line.strip_prefix("- `")))
        .filter_map(|line| line.split_once('`'))
        .collect();
    let explained = |name: &str| rows.get(name).is_some_and(|why| why.trim_matches([' ', '|', ':']).len() > 5);
    names
        .filter(|name| !explained(name))
        .map(|name| format!("ARCHITECTURE.md does not say why {name} is there"))
        .collect()
}

/// Of each rule: it can fail, and it lets pass what is right.
mod rules {
    use super::*;

    fn edge(from: &str, to: &str, kind: DependencyKind) -> Edge {
        (from.to_owned(), to.to_owned(), kind)
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_edge_that_is_not_drawn_is_found() {
        let good = [
            edge("pointsman-client", "pointsman-proto", DependencyKind::Normal),
            edge("pointsman-daemon", "pointsman-client", DependencyKind::Development),
            edge("pointsman-client", "tonic", DependencyKind::Normal),
        ];
        assert_eq!(undrawn_edges(&good), strings(&[]));
        let bad = [
            edge("pointsman-client", "pointsman-router", DependencyKind::Normal),
            edge("pointsman-daemon", "pointsman-client", DependencyKind::Normal),
        ];
        assert_eq!(undrawn_edges(&bad).len(), 2);
    }

    #[test]
    fn a_forbidden_dependency_is_found() {
        let used = [
            edge("pointsman-router", "tonic-prost", DependencyKind::Normal),
            edge("pointsman-router", "tokio", DependencyKind::Normal),
            edge("pointsman-learner", "tokio", DependencyKind::Development),
            edge("pointsman-daemon", "rusqlite", DependencyKind::Normal),
        ];
        assert_eq!(forbidden_dependencies(&used).len(), 2);
    }

    #[test]
    fn an_import_from_below_is_found_however_it_is_spelt() {
        #[track_caller]
        fn check(path: &[&str], code: &str, expected: &[&str]) {
            let order = declared_modules("//! mod zero;\npub mod one;\nmod two;\npub(crate) mod three;\n");
            let place = ModulePlace::of(&strings(path));
            let found = place.map(|place| imports_from_below(&order, &place, code));
            assert_eq!(found, Some(strings(expected).into_iter().collect()));
        }
        check(&["two.rs"], "use crate::one::A;\nuse crate::two::B;", &[]);
        check(&["two.rs"], "use crate::three::A;", &["three"]);
        check(&["two.rs"], "use crate::{one::{A, three}, three::B};", &["three"]);
        check(&["two.rs"], "/// See [`crate::three`].\nuse pointsman::three;", &[]);
        check(&["two.rs"], "fn f() { crate::three::g() }", &["three"]);
        check(&["two.rs"], "use super::three::A;", &["three"]);
        check(&["two", "mod.rs"], "use super::three::A;", &["three"]);
        check(&["two", "part.rs"], "use super::three::A;", &[]);
        check(&["two", "part.rs"], "use super::super::three::A;", &["three"]);
        check(&["four.rs"], "", &["four, which lib.rs does not declare"]);
        assert!(ModulePlace::of(&strings(&["two", "tests.rs"])).is_none());
    }

    #[test]
    fn test_items_are_cut_out_and_nothing_else() {
        let item = "#[cfg(test)]\n#[derive(Debug)]\nstruct S {\n    f: u8,\n}\n";
        let module = "#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\n";
        let source = format!("a\n#[cfg(test)]\nmod tests;\nb\n{item}c\n{module}d");
        assert_eq!(without_tests(&source), "a\nb\nc\nd");
    }

    #[test]
    fn a_long_unexplained_or_emptily_named_file_is_found() {
        #[track_caller]
        fn check(path: &[&str], text: &str, expected: usize) {
            assert_eq!(shape_faults(&strings(path), text).len(), expected);
        }
        let long = format!("//! Why.\n{}", "x\n".repeat(LINES_MAX));
        check(&["router", "src", "merge.rs"], "//! Why.\nx", 0);
        check(&["router", "src", "merge.rs"], "x", 1);
        check(&["router", "src", "merge.rs"], &long, 1);
        check(&["router", "src", "merge", "tests.rs"], &long, 0);
        check(&["router", "src", "utils.rs"], "//! Why.", 1);
        check(&["router", "src", "common", "mod.rs"], "x", 2);
    }

    #[test]
    fn a_stray_entry_at_the_top_is_found() {
        let entries = [("router", true), ("target", true), ("LICENSE", false), ("notes.md", false), ("web", true)];
        let entries = entries.map(|(name, is_folder)| (name.to_owned(), is_folder));
        assert_eq!(stray_entries(&entries).len(), 2);
    }

    #[test]
    fn a_machine_path_is_found() {
        let [work, root, ..] = MACHINE_PATHS;
        let bad = format!("see {root}/x\n\"{work}\"\n");
        assert_eq!(machine_paths(&bad).len(), 2);
        let good = format!("the way{work}s, docs{work}/x, {work}space, https://a.b{root}\n");
        assert_eq!(machine_paths(&good), strings(&[]));
    }

    #[test]
    fn a_version_outside_the_workspace_is_found() {
        let manifest = "[dependencies]\na.workspace = true\nb = \"1\"\n[dev-dependencies]\nc = { path = \"x\" }\n";
        assert_eq!(own_versions(&manifest.parse().unwrap()).len(), 2);
    }

    #[test]
    fn a_dependency_without_its_reason_is_found() {
        let names = strings(&["a", "b", "c"]);
        let page = "| `a` | because of this |\n- `b`:\nand `c` is good\n";
        assert_eq!(unexplained(names.iter(), page).len(), 2);
    }
}
