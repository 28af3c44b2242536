//! Rules about who depends on whom.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Violation;
use super::rules::{self, Layer};
use crate::metadata::{Kind, Metadata, Package};

/// Checks direction and purity of every member's dependencies.
pub(super) fn check(metadata: &Metadata) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in metadata.members() {
        match rules::layer_of(&package.name) {
            None => violations.push(Violation::Unassigned { name: package.name.clone() }),
            Some(layer) => {
                violations.extend(check_direction(metadata, package, layer));
                if layer.is_pure() {
                    violations.extend(check_purity(metadata, package, layer));
                }
            }
        }
    }
    violations
}

/// A crate looks down only, in its tests too: a test that needs an upper layer belongs into `tests/`.
fn check_direction(metadata: &Metadata, package: &Package, layer: Layer) -> Vec<Violation> {
    let members: BTreeSet<&str> = metadata.members().map(|member| member.name.as_str()).collect();
    let mut violations = Vec::new();
    for dependency in &package.dependencies {
        // Unassigned members have their own violation.
        let Some(other) =
            rules::layer_of(&dependency.name).filter(|_| members.contains(dependency.name.as_str()))
        else {
            continue;
        };
        if !layer.may_use(other) {
            violations.push(Violation::Upwards {
                name: package.name.clone(),
                layer,
                kind: match dependency.kind {
                    Kind::Normal => "normal",
                    Kind::Build => "build",
                    Kind::Dev => "dev",
                },
                dependency: dependency.name.clone(),
                other,
            });
        }
    }
    violations
}

/// A pure crate contains nothing that knows the outside: by name in its manifest, and transitively among its normal
/// dependencies. Dev-dependencies may be anything, for an oracle may well bring a runtime along.
fn check_purity(metadata: &Metadata, package: &Package, layer: Layer) -> Vec<Violation> {
    let impure = |dependency: &str, reason, path| Violation::Impure {
        name: package.name.clone(),
        layer,
        dependency: dependency.to_owned(),
        reason,
        path,
    };
    let mut violations = Vec::new();
    for dependency in package.dependencies.iter().filter(|dependency| dependency.kind == Kind::Normal) {
        if let Some(ban) = rules::forbidden_directly(&dependency.name) {
            let path = format!("{} > {}", package.name, dependency.name);
            violations.push(impure(&dependency.name, ban.reason, path));
        }
    }
    for path in normal_closure(metadata, package) {
        let name = path.last().copied().unwrap_or_default();
        if let Some(ban) = rules::forbidden(name) {
            violations.push(impure(name, ban.reason, path.join(" > ")));
        }
    }
    violations
}

/// Every package below `package` along normal dependencies, each by a shortest path of names.
fn normal_closure<'m>(metadata: &'m Metadata, package: &'m Package) -> Vec<Vec<&'m str>> {
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    let nodes: BTreeMap<&str, _> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();

    let mut seen = BTreeSet::from([package.id.as_str()]);
    let mut queue = VecDeque::from([(package.id.as_str(), vec![package.name.as_str()])]);
    let mut paths = Vec::new();
    while let Some((id, path)) = queue.pop_front() {
        let edges = nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default();
        for edge in edges {
            let normal = edge.dep_kinds.iter().any(|kind| kind.kind == Kind::Normal);
            if normal && seen.insert(&edge.pkg) {
                let mut below = path.clone();
                below.push(names.get(edge.pkg.as_str()).copied().unwrap_or(&edge.pkg));
                paths.push(below.clone());
                queue.push_back((&edge.pkg, below));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Dependency, Edge, EdgeKind, Node, Resolve};

    /// A workspace of `members` whose graph has these edges; crates that are no members are third-party.
    fn workspace(members: &[&str], edges: &[(&str, &str, Kind)]) -> Metadata {
        let mut names: BTreeSet<&str> = members.iter().copied().collect();
        names.extend(edges.iter().flat_map(|(from, to, _)| [*from, *to]));
        let below = |name: &str| {
            let name = name.to_owned();
            edges.iter().filter(move |(from, ..)| *from == name)
        };
        Metadata {
            packages: names
                .iter()
                .map(|name| Package {
                    id: (*name).into(),
                    name: (*name).into(),
                    manifest_path: format!("/{name}/Cargo.toml").into(),
                    targets: Vec::new(),
                    dependencies: below(name)
                        .map(|(_, to, kind)| Dependency { name: (*to).into(), kind: *kind })
                        .collect(),
                })
                .collect(),
            workspace_members: members.iter().map(|name| (*name).into()).collect(),
            resolve: Resolve {
                nodes: names
                    .iter()
                    .map(|name| Node {
                        id: (*name).into(),
                        deps: below(name)
                            .map(|(_, to, kind)| Edge {
                                pkg: (*to).into(),
                                dep_kinds: vec![EdgeKind { kind: *kind }],
                            })
                            .collect(),
                    })
                    .collect(),
            },
            workspace_root: "/".into(),
        }
    }

    fn texts(metadata: &Metadata) -> Vec<String> {
        check(metadata).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lower_layers_and_third_parties_are_fine() {
        let metadata = workspace(
            &["tombola-sphinx", "tombola-protocol", "tombola-link", "tombola-tests"],
            &[
                ("tombola-sphinx", "aes", Kind::Normal),
                ("tombola-sphinx", "sphinx-packet", Kind::Dev),
                ("tombola-protocol", "tombola-sphinx", Kind::Normal),
                ("tombola-link", "tokio", Kind::Normal),
                ("tombola-tests", "tombola-link", Kind::Normal),
            ],
        );
        assert_eq!(texts(&metadata), Vec::<String>::new());
    }

    #[test]
    fn upward_dependency_names_crate_dependency_and_rule() {
        let metadata = workspace(
            &["tombola-sphinx", "tombola-protocol"],
            &[("tombola-sphinx", "tombola-protocol", Kind::Build)],
        );
        assert_eq!(
            texts(&metadata),
            [
                "tombola-sphinx (L1) has a build dependency on tombola-protocol (L2): a crate depends only on lower \
              layers, and never on its siblings"
            ]
        );
    }

    #[test]
    fn siblings_are_refused_even_for_tests() {
        let metadata = workspace(
            &["tombola-sphinx", "tombola-mixing"],
            &[("tombola-sphinx", "tombola-mixing", Kind::Dev)],
        );
        assert!(matches!(check(&metadata)[..], [Violation::Upwards { kind: "dev", .. }]));
    }

    #[test]
    fn nobody_depends_on_what_is_beside_the_layers() {
        let metadata =
            workspace(&["tombola", "tombola-tests"], &[("tombola", "tombola-tests", Kind::Normal)]);
        assert!(matches!(check(&metadata)[..], [Violation::Upwards { .. }]));
    }

    #[test]
    fn a_runtime_far_below_is_found_with_its_path() {
        let metadata = workspace(
            &["tombola-sphinx", "tombola-protocol"],
            &[
                ("tombola-protocol", "tombola-sphinx", Kind::Normal),
                ("tombola-sphinx", "convenient", Kind::Normal),
                ("convenient", "tokio-util", Kind::Normal),
            ],
        );
        let texts = texts(&metadata);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].contains("path: tombola-protocol > tombola-sphinx > convenient > tokio-util"));
        assert!(texts[1].contains("path: tombola-sphinx > convenient > tokio-util"));
        assert!(texts[1].contains("no runtime"));
    }

    #[test]
    fn what_only_tests_or_build_scripts_bring_along_is_ignored() {
        let metadata = workspace(
            &["tombola-mixing"],
            &[
                ("tombola-mixing", "oracle", Kind::Dev),
                ("oracle", "tokio", Kind::Normal),
                ("tombola-mixing", "builder", Kind::Build),
                ("builder", "rusqlite", Kind::Normal),
            ],
        );
        assert_eq!(texts(&metadata), Vec::<String>::new());
    }

    #[test]
    fn thread_rngs_are_refused_by_name_only() {
        let direct = workspace(&["tombola-mixing"], &[("tombola-mixing", "rand", Kind::Normal)]);
        assert!(
            matches!(&check(&direct)[..], [Violation::Impure { dependency, .. }] if dependency == "rand")
        );
        let deep = workspace(
            &["tombola-mixing"],
            &[("tombola-mixing", "crypto", Kind::Normal), ("crypto", "rand", Kind::Normal)],
        );
        assert_eq!(texts(&deep), Vec::<String>::new());
    }

    #[test]
    fn a_new_crate_must_be_given_a_layer() {
        let metadata = workspace(&["tombola-lottery"], &[]);
        assert_eq!(
            texts(&metadata),
            ["tombola-lottery has no layer: add it to CRATES in xtask/src/layers/rules.rs"]
        );
    }
}
