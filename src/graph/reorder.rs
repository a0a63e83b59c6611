//! Graphs with the same nodes in another order, or with fewer.

use super::{Graph, NodeId, TensorId, TensorKind};

impl Graph {
    /// Rebuilds the graph with each `(node, place)` of `moves` right behind its place, in the order given, and without the nodes `dropped`.
    pub fn with_moved(&self, moves: &[(NodeId, NodeId)], dropped: &[NodeId]) -> Graph {
        let mut behind: Vec<Vec<NodeId>> = vec![Vec::new(); self.nodes.len()];
        let mut stays = vec![true; self.nodes.len()];
        dropped.iter().for_each(|n| stays[n.index()] = false);
        for &(n, place) in moves {
            behind[place.index()].push(n);
            stays[n.index()] = false;
        }
        let mut order = Vec::with_capacity(self.nodes.len());
        for n in self.node_ids().filter(|n| stays[n.index()]) {
            order.push(n);
            order.extend(&behind[n.index()]);
        }
        self.reordered(&order)
    }

    /// Rebuilds the graph with only the nodes of `order`, in that order, and only the tensors they (or the results) use.
    ///
    /// Parameters, inputs and states that nothing uses disappear too. Names are unchanged.
    pub fn reordered(&self, order: &[NodeId]) -> Graph {
        self.rebuilt(order, self.tensor_ids())
    }

    /// The same graph with values numbered in the order in which nodes compute them.
    pub fn with_values_in_order(&self) -> Graph {
        let mut computed = self.nodes.iter().flat_map(|node| node.outputs.iter().copied());
        let mut next = || computed.next().expect("a value has a node that computes it");
        let tensors = self.tensor_ids().map(|t| match self.tensor(t).kind {
            TensorKind::Value(_) => next(),
            _ => t,
        });
        let order: Vec<NodeId> = self.node_ids().collect();
        self.rebuilt(&order, tensors.collect::<Vec<_>>())
    }

    /// Rebuilds the graph with only the nodes of `order` and the tensors they or the results use, those in the order of `tensors`.
    fn rebuilt(&self, order: &[NodeId], tensors: impl IntoIterator<Item = TensorId>) -> Graph {
        let mut used = vec![false; self.tensors.len()];
        for &n in order {
            let node = self.node(n);
            node.operands.iter().chain(&node.outputs).for_each(|t| used[t.index()] = true);
        }
        self.outputs.iter().for_each(|(_, t)| used[t.index()] = true);
        let mut node_key = vec![None; self.nodes.len()];
        for (new, &old) in order.iter().enumerate() {
            node_key[old.index()] = Some(NodeId(new as u32));
        }
        let mut key = vec![None; self.tensors.len()];
        let mut graph = Graph { name: self.name.clone(), constants: self.constants.clone(), ..Graph::default() };
        for old in tensors.into_iter().filter(|t| used[t.index()]) {
            let mut tensor = self.tensor(old).clone();
            if let TensorKind::Value(producer) = &mut tensor.kind {
                *producer = node_key[producer.index()].expect("a tensor in use has its producer in the order");
            }
            key[old.index()] = Some(TensorId(graph.tensors.len() as u32));
            graph.tensors.push(tensor);
        }
        let map = |t: &TensorId| key[t.index()].expect("a tensor in use has a new key");
        for &n in order {
            let mut node = self.node(n).clone();
            node.operands = node.operands.iter().map(map).collect();
            node.outputs = node.outputs.iter().map(map).collect();
            graph.nodes.push(node);
        }
        graph.outputs = self.outputs.iter().map(|(name, t)| (name.clone(), map(t))).collect();
        graph
    }
}
