//! Who uses whom: the paths `crate::…`, `super::…` and `self::…` of all code that is not a test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module's place: `["run", "calls"]`; empty for the library itself.
pub type Place = Vec<String>;

/// One module, as far as it matters here.
#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    /// What its `use` declarations give names to: where that really is.
    names: BTreeMap<String, Place>,
    paths: Vec<Place>,
}

/// All modules of the library that are compiled without tests.
pub struct Library(BTreeMap<Place, Module>);

/// One module uses another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The folder that both are in; empty: they are in different rooms.
    pub folder: Place,
    /// The part of the folder (a file or a folder) that uses the other.
    pub from: String,
    /// The part that is used.
    pub to: String,
    /// The file with the path.
    pub file: PathBuf,
}

impl Library {
    /// Reads `lib.rs` and every module that it declares, directly or not.
    pub fn read(lib: &Path) -> Self {
        let mut library = Self(BTreeMap::new());
        let folder = lib.parent().expect("lib.rs is in a folder");
        library.add(Vec::new(), lib, folder);
        library
    }

    fn add(&mut self, place: Place, file: &Path, folder: &Path) {
        let tokens = without_tests(tokens(&std::fs::read_to_string(file).expect("a file that can be read")));
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for (index, token) in tokens.iter().enumerate() {
            if token == "mod" && tokens.get(index + 2).is_some_and(|t| t == ";") {
                module.children.insert(tokens[index + 1].clone());
            }
        }
        for (index, token) in tokens.iter().enumerate() {
            let starts = matches!(token.as_str(), "crate" | "super" | "self");
            if starts && tokens.get(index + 1).is_some_and(|t| t == "::") && (index == 0 || tokens[index - 1] != "::") {
                let in_use =
                    tokens[..index].iter().rposition(|t| t == ";" || t == "use").is_some_and(|at| tokens[at] == "use");
                // Those of `use` declarations are read below, with the names that they give.
                if !in_use {
                    let leaves = tree(&tokens, index).0;
                    module
                        .paths
                        .extend(leaves.into_iter().filter_map(|(path, _)| absolute(&place, &module.children, path)));
                }
            }
            if token == "use" {
                for (path, name) in tree(&tokens, index + 1).0 {
                    let Some(path) = absolute(&place, &module.children, path) else { continue };
                    module.names.insert(name, path.clone());
                    module.paths.push(path);
                }
            }
        }
        for child in module.children.clone() {
            let candidates = [folder.join(format!("{child}.rs")), folder.join(&child).join("mod.rs")];
            let file = candidates
                .iter()
                .find(|file| file.exists())
                .unwrap_or_else(|| panic!("no file of {child} in {folder:?}"));
            let place = [place.as_slice(), std::slice::from_ref(&child)].concat();
            self.add(place, file, &folder.join(&child));
        }
        self.0.insert(place, module);
    }

    /// The names of the rooms: all that is directly below the library.
    pub fn rooms(&self) -> BTreeSet<String> {
        self.0[&Vec::new()].children.clone()
    }

    /// Every use of one part of a folder by another. That a module uses what it contains, or what contains it, is no matter.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (from, module) in &self.0 {
            for path in &module.paths {
                let to = self.resolve(path, 0);
                let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
                    let (folder, file) = (from[..common].to_vec(), module.file.clone());
                    imports.insert(Import { folder, from: a.clone(), to: b.clone(), file });
                }
            }
        }
        imports
    }

    /// The module that an absolute path leads to, also through names that modules on the way re-export.
    fn resolve(&self, path: &[String], depth: usize) -> Place {
        let mut place = Place::new();
        for (index, segment) in path.iter().enumerate() {
            let module = &self.0[&place];
            if module.children.contains(segment) {
                place.push(segment.clone());
            } else if let Some(named) = module.names.get(segment).filter(|_| depth < 8) {
                return self.resolve(&[named, &path[index + 1..]].concat(), depth + 1);
            } else {
                break;
            }
        }
        place
    }
}

/// A path as seen from the library; `None` for one of another crate.
fn absolute(place: &[String], children: &BTreeSet<String>, path: Vec<String>) -> Option<Place> {
    let mut base = match path.first()?.as_str() {
        "crate" => Place::new(),
        "self" => place.to_vec(),
        "super" => place[..place.len().checked_sub(1)?].to_vec(),
        child if children.contains(child) => return Some([place, &path].concat()),
        _ => return None,
    };
    for segment in &path[1..] {
        match segment.as_str() {
            "super" => drop(base.pop()?),
            _ => base.push(segment.clone()),
        }
    }
    Some(base)
}

/// The paths of a tree `a::{b, c::d as e}` that begins at a token, each with the name that it gives; and where it ends.
fn tree(tokens: &[String], mut at: usize) -> (Vec<(Vec<String>, String)>, usize) {
    let mut path: Vec<String> = Vec::new();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                let mut leaves = Vec::new();
                at += 1;
                while tokens[at] != "}" {
                    let (inner, end) = tree(tokens, at);
                    leaves.extend(inner.into_iter().map(|(tail, name)| match tail.as_slice() {
                        [only] if only == "self" => (path.clone(), path.last().cloned().unwrap_or_default()),
                        _ => ([path.as_slice(), &tail].concat(), name),
                    }));
                    at = if tokens[end] == "," { end + 1 } else { end };
                }
                return (leaves, at + 1);
            }
            Some(segment) if is_word(segment) => {
                path.push(segment.to_owned());
                at += 1;
            }
            Some("*") => at += 1,
            _ => {}
        }
        match tokens.get(at).map(String::as_str) {
            Some("::") if tokens.get(at + 1).is_some_and(|t| t == "{" || t == "*" || is_word(t)) => at += 1,
            Some("as") => {
                let name = tokens[at + 1].clone();
                return (vec![(path, name)], at + 2);
            }
            _ => {
                let name = path.last().cloned().unwrap_or_default();
                return (vec![(path, name)], at);
            }
        }
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::`, and single characters; no comments, strings and characters in quotes.
pub fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    let starts = |at: usize, with: &str| with.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let c = chars[at];
        if starts(at, "//") {
            at = (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len());
        } else if starts(at, "/*") {
            at = (at + 2..chars.len()).find(|i| starts(*i, "*/")).map_or(chars.len(), |end| end + 2);
        } else if let Some(end) = raw_string(&chars, at) {
            at = end;
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' {
            // A lifetime has no second quote.
            at += match (chars.get(at + 1), chars.get(at + 2)) {
                (Some('\\'), _) => (at + 3..chars.len()).find(|i| chars[*i] == '\'').map_or(1, |end| end + 1 - at),
                (_, Some('\'')) => 3,
                _ => 1,
            };
        } else if c.is_alphanumeric() || c == '_' {
            let end =
                (at..chars.len()).find(|i| !(chars[*i].is_alphanumeric() || chars[*i] == '_')).unwrap_or(chars.len());
            tokens.push(chars[at..end].iter().collect());
            at = end;
        } else if starts(at, "::") {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

/// Where a raw string that begins here ends.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let inside_a_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let mut quote = at + usize::from(chars[at] == 'b');
    if inside_a_word || chars.get(quote) != Some(&'r') {
        return None;
    }
    quote += 1;
    let hashes = chars[quote..].iter().take_while(|c| **c == '#').count();
    if chars.get(quote + hashes) != Some(&'"') {
        return None;
    }
    let closes = |i: &usize| chars[*i] == '"' && chars[i + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    (quote + hashes + 1..chars.len()).find(closes).map(|end| end + 1 + hashes)
}

/// Without the items that are compiled for tests only.
pub fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !is_test(&tokens, at) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // Its further attributes, then the item: to its `;`, or to the end of its block.
        while tokens.get(at).is_some_and(|t| t == "#") {
            at = closing(&tokens, at + 1);
        }
        let end = (at..tokens.len()).find(|i| tokens[*i] == ";" || tokens[*i] == "{").unwrap_or(tokens.len());
        at = if tokens.get(end).is_some_and(|t| t == "{") { closing(&tokens, end) } else { end + 1 };
    }
    kept
}

/// Whether `#[cfg(test)]`, or one that needs it, is here.
fn is_test(tokens: &[String], at: usize) -> bool {
    let head = ["#", "[", "cfg", "("];
    if !head.iter().enumerate().all(|(i, t)| tokens.get(at + i).is_some_and(|token| token == t)) {
        return false;
    }
    let inside = &tokens[at + 1..closing(tokens, at + 1)];
    inside.iter().any(|t| t == "test") && !inside.iter().any(|t| t == "not" || t == "any")
}

/// Behind the bracket that closes the one here.
fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}
