//! What is done to a tree by the numbers of its nodes, for who goes through directories one by one: names take the
//! place of others, of whatever kind these are.

use super::{
    Content, Meta, Node, NodeId, TreeBuilder, TreeError, check_content, check_meta, name_fault,
    printable,
};

impl TreeBuilder {
    /// Puts an entry into a directory. A directory in the place of another keeps its number and what is in it.
    pub(crate) fn put_in(
        &mut self,
        dir: NodeId,
        name: &[u8],
        meta: Meta,
        content: Content,
    ) -> Result<NodeId, TreeError> {
        check_name(name)?;
        check_meta(name, &meta)?;
        check_content(name, &content)?;
        if matches!(content, Content::Directory)
            && let Some(there) = self.directory_in(dir, name)
        {
            self.replace_node(name, there, meta, content)?;
            return Ok(there);
        }
        let node = self.push(Node::new(meta, content));
        self.nodes[dir].children_mut().insert(name.into(), node);
        Ok(node)
    }

    /// Gives the root its attributes.
    pub(crate) fn describe_root(&mut self, meta: Meta) -> Result<(), TreeError> {
        self.add(b"", meta, Content::Directory)
    }

    /// Sees to it that a name is a directory: the one that is there, else one that nobody described.
    pub(crate) fn imply_in(&mut self, dir: NodeId, name: &[u8]) -> Result<NodeId, TreeError> {
        check_name(name)?;
        if let Some(there) = self.directory_in(dir, name) {
            return Ok(there);
        }
        let node = self.push(Node::implicit_directory());
        self.nodes[dir].children_mut().insert(name.into(), node);
        Ok(node)
    }

    /// Gives a node, which is no directory, a further name.
    pub(crate) fn link_in(
        &mut self,
        dir: NodeId,
        name: &[u8],
        node: NodeId,
    ) -> Result<(), TreeError> {
        check_name(name)?;
        self.nodes[dir].children_mut().insert(name.into(), node);
        Ok(())
    }

    /// Gives a node, which is no directory, a further name by its path; what is no directory is taken out of its way.
    pub(crate) fn link_node(&mut self, path: &[u8], node: NodeId) -> Result<(), TreeError> {
        super::check_path(path)?;
        self.clear_way(path);
        let (dir, name) = self.parent_of(path)?;
        self.link_in(dir, name, node)
    }

    /// Takes a name, and all below it, out of a directory.
    pub(crate) fn remove_in(&mut self, dir: NodeId, name: &[u8]) {
        if let Some(children) = &mut self.nodes[dir].children {
            children.remove(name);
        }
    }

    /// Takes everything out of a directory.
    pub(crate) fn clear(&mut self, dir: NodeId) {
        self.nodes[dir].children = None;
    }

    /// The directory of this name in another.
    pub(crate) fn directory_in(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        let there = *self.nodes[dir].children().get(name)?;
        matches!(self.nodes[there].content, Content::Directory).then_some(there)
    }
}

fn check_name(name: &[u8]) -> Result<(), TreeError> {
    match name_fault(name) {
        Some(reason) => Err(TreeError::BadPath { path: printable(name), reason }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: NodeId = TreeBuilder::ROOT;

    fn mode(mode: u16) -> Meta {
        Meta::with_mode(mode)
    }

    #[test]
    fn a_directory_keeps_what_is_in_it_and_another_kind_does_not() {
        let mut tree = TreeBuilder::new();
        let dir = tree.put_in(ROOT, b"d", mode(0o755), Content::Directory).unwrap();
        let fifo = tree.put_in(dir, b"f", mode(0o600), Content::Fifo).unwrap();
        assert_eq!(tree.put_in(ROOT, b"d", mode(0o700), Content::Directory), Ok(dir));
        assert_eq!((tree.node(dir).mode, tree.find(b"d/f")), (0o700, Some(fifo)));
        let socket = tree.put_in(ROOT, b"d", mode(0o600), Content::Socket).unwrap();
        assert_eq!((tree.find(b"d"), tree.find(b"d/f")), (Some(socket), None));
        let again = tree.put_in(ROOT, b"d", mode(0o755), Content::Directory).unwrap();
        assert!(tree.node(again).children().is_empty());
    }

    #[test]
    fn what_is_implied_leaves_a_directory_as_it_is() {
        let mut tree = TreeBuilder::new();
        let dir = tree.put_in(ROOT, b"d", mode(0o700), Content::Directory).unwrap();
        assert_eq!(tree.imply_in(ROOT, b"d"), Ok(dir));
        assert_eq!((tree.node(dir).mode, tree.node(dir).implicit), (0o700, false));
        tree.put_in(ROOT, b"f", mode(0o600), Content::Fifo).unwrap();
        let over = tree.imply_in(ROOT, b"f").unwrap();
        assert_eq!((tree.node(over).mode, tree.node(over).implicit), (0o755, true));
        assert_eq!(tree.put_in(ROOT, b"f", mode(0o711), Content::Directory), Ok(over));
        assert!(!tree.node(over).implicit);
        tree.describe_root(mode(0o700)).unwrap();
        assert_eq!((tree.node(ROOT).mode, tree.find(b"d")), (0o700, Some(dir)));
    }

    #[test]
    fn a_link_takes_its_place_and_shares_the_node() {
        let mut tree = TreeBuilder::new();
        let fifo = tree.put_in(ROOT, b"f", mode(0o600), Content::Fifo).unwrap();
        tree.link_node(b"f/below", fifo).unwrap();
        assert_eq!(tree.find(b"f/below"), Some(fifo));
        tree.link_in(ROOT, b"f", fifo).unwrap();
        assert_eq!((tree.find(b"f"), tree.find(b"f/below")), (Some(fifo), None));
        assert!(matches!(tree.link_node(b"../f", fifo), Err(TreeError::BadPath { .. })));
    }

    #[test]
    fn what_is_removed_is_gone_with_all_below_it() {
        let mut tree = TreeBuilder::new();
        let dir = tree.imply_in(ROOT, b"d").unwrap();
        let inner = tree.imply_in(dir, b"e").unwrap();
        tree.put_in(inner, b"f", mode(0o600), Content::Fifo).unwrap();
        tree.clear(dir);
        assert_eq!((tree.find(b"d"), tree.find(b"d/e")), (Some(dir), None));
        tree.remove_in(ROOT, b"d");
        tree.remove_in(ROOT, b"");
        assert!(!tree.contains(b"d"));
    }

    #[test]
    fn names_that_no_kernel_takes_are_refused() {
        let mut tree = TreeBuilder::new();
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            let put = tree.put_in(ROOT, name, mode(0o600), Content::Fifo);
            assert!(matches!(put, Err(TreeError::BadPath { .. })), "{}", name.escape_ascii());
            let implied = tree.imply_in(ROOT, name);
            assert!(matches!(implied, Err(TreeError::BadPath { .. })), "{}", name.escape_ascii());
        }
    }
}
