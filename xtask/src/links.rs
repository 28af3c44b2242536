//! Links between the Markdown files of the repository: what they point to must exist, headings included.
//!
//! Links to the web are not followed, so that the check gives the same answer everywhere. Links to Rust items
//! (`crate::Type`) are left to rustdoc.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::metadata::Workspace;

/// Checks every Markdown file of the repository.
///
/// # Errors
///
/// At least one link leads nowhere; all of them are listed with file and line.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut files = Vec::new();
    collect(workspace.root(), &mut files).context("cannot list the repository")?;
    let mut broken = String::new();
    let mut count = 0;
    for file in &files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for link in links(&text) {
            count += 1;
            if let Err(reason) = resolve(file, &text, &link.target) {
                let shown = file.strip_prefix(workspace.root()).unwrap_or(file).display();
                write!(broken, "\n  {shown}:{}: `{}`: {reason}", link.line, link.target)?;
            }
        }
    }
    if !broken.is_empty() {
        bail!("links that lead nowhere:{broken}");
    }
    println!("{count} links in {} Markdown files lead somewhere", files.len());
    Ok(())
}

/// All Markdown files below a directory, without build output and hidden directories.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            let is_output = ["target", "node_modules", "corpus", "artifacts", "cache"].contains(&&*name);
            if !is_output && !name.starts_with('.') {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    Ok(())
}

/// A link as it stands in the text.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    line: usize,
    target: String,
}

/// The relative links of a Markdown text: `[text](target)` and `[label]: target`, outside code.
fn links(text: &str) -> Vec<Link> {
    let mut links = Vec::new();
    for (line, content) in prose(text) {
        let mut rest = content.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let end = rest.find(')').unwrap_or(rest.len());
            links.push(Link { line, target: rest[..end].into() });
            rest = &rest[end..];
        }
        if let Some((label, target)) = content.split_once("]: ")
            && label.starts_with('[')
        {
            links.push(Link { line, target: target.trim().into() });
        }
    }
    for link in &mut links {
        // A title may follow: [text](target "title").
        if let Some((target, _)) = link.target.split_once(' ') {
            link.target = target.into();
        }
    }
    links.retain(|link| is_relative(&link.target));
    links
}

fn is_relative(target: &str) -> bool {
    let is_item = target.contains("::");
    let is_absolute = target.contains("://") || target.starts_with("mailto:");
    !(is_item || is_absolute)
}

/// The lines, numbered from 1, that are not inside a fenced block, with inline code blanked.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            // Odd pieces between backticks are code. What is unbalanced stays as it is.
            let pieces: Vec<&str> = line.split('`').collect();
            let balanced = pieces.len() % 2 == 1;
            let kept = pieces.iter().enumerate().map(
                |(at, piece)| {
                    if balanced && at % 2 == 1 { "" } else { *piece }
                },
            );
            lines.push((index + 1, kept.collect()));
        }
    }
    lines
}

/// Whether a target that stands in `file`, whose content is `text`, exists.
fn resolve(file: &Path, text: &str, target: &str) -> Result<(), String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    if path.starts_with('/') {
        return Err("is absolute: links are relative to their file".into());
    }
    let destination = file.with_file_name("").join(path);
    if !path.is_empty() && !destination.exists() {
        return Err("there is no such file".into());
    }
    let is_markdown = path.is_empty() || path.ends_with(".md");
    if anchor.is_empty() || !is_markdown {
        return Ok(());
    }
    let other = match path {
        "" => text.to_owned(),
        _ => std::fs::read_to_string(&destination).map_err(|error| error.to_string())?,
    };
    if anchors(&other).contains(anchor) {
        return Ok(());
    }
    Err(format!("there is no heading `#{anchor}`"))
}

/// The anchors that the headings of a text get: lower case, punctuation dropped, spaces as hyphens, repeated ones
/// numbered.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let repeats = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(repeats).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(text: &str) -> Vec<String> {
        links(text).into_iter().map(|link| link.target).collect()
    }

    #[test]
    fn both_forms_of_links_are_found_with_their_lines() {
        let text = "a [b](c.md) and [d](e.md#f \"title\")\n\n[g]: h.md\n";
        let found = links(text);
        assert_eq!(found.iter().map(|link| link.line).collect::<Vec<_>>(), [1, 1, 3]);
        assert_eq!(targets(text), ["c.md", "e.md#f", "h.md"]);
    }

    #[test]
    fn code_the_web_and_rust_items_are_left_alone() {
        let text =
            "`[a](b)` [c](https://d.example/e) [f](crate::G) [h](mailto:i@j.example)\n```\n[k](l)\n```\n";
        assert_eq!(targets(text), Vec::<String>::new());
    }

    #[test]
    fn anchors_follow_the_headings() {
        let text = "# Time & place\n## `code` here\n## Same\n## Same\n```\n# no heading\n```\n#hashtag\n";
        let expected = ["code-here", "same", "same-1", "time--place"].map(String::from);
        assert_eq!(anchors(text), BTreeSet::from(expected));
    }

    #[test]
    fn files_and_headings_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.md");
        std::fs::write(directory.path().join("b.md"), "# One heading\n").unwrap();
        let check = |target| resolve(&file, "# Mine\n", target);
        assert_eq!(check("b.md"), Ok(()));
        assert_eq!(check("b.md#one-heading"), Ok(()));
        assert_eq!(check("#mine"), Ok(()));
        assert!(check("c.md").unwrap_err().contains("no such file"));
        assert!(check("b.md#two").unwrap_err().contains("no heading"));
        assert!(check("#yours").unwrap_err().contains("no heading"));
        assert!(check("/b.md").unwrap_err().contains("absolute"));
    }
}
