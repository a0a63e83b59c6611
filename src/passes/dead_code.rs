//! Dead-code elimination: keeps what the results and in-place updates need.

use crate::graph::{Graph, NodeId};
use crate::ops;

/// The graph without nodes that no result and no update of a parameter or state depends on.
pub fn eliminate(graph: &Graph) -> Graph {
    let mut live = vec![false; graph.nodes.len()];
    let mut wanted = vec![false; graph.tensors.len()];
    graph.outputs.iter().for_each(|(_, t)| wanted[t.index()] = true);
    for n in graph.node_ids().rev() {
        let node = graph.node(n);
        let sig = ops::build::signature(graph, node);
        let updates = ops::find(&node.op).is_some_and(|op| {
            (0..node.operands.len()).any(|i| op.mutates(&sig, i))
                || (0..node.outputs.len()).any(|o| {
                    op.must_alias(&sig, o)
                        .is_some_and(|i| matches!(graph.tensor(node.operands[i]).kind, crate::graph::TensorKind::State))
                })
        });
        if updates || node.outputs.iter().any(|t| wanted[t.index()]) {
            live[n.index()] = true;
            node.operands.iter().for_each(|t| wanted[t.index()] = true);
        }
    }
    let order: Vec<NodeId> = graph.node_ids().filter(|n| live[n.index()]).collect();
    graph.reordered(&order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Attrs;
    use crate::ops::build::{Call, call};
    use crate::tensor::{DType, RowExtent, Shape};

    #[test]
    fn drops_only_what_nothing_reads() {
        let mut g = Graph::new("t");
        let x = g.add_input("x", DType::F32, RowExtent::Step, Shape::new([8]));
        let mut add = |name: &str, input| {
            let c = Call { op: "gelu", name: name.into(), inputs: vec![input], path: None, attrs: Attrs::new() };
            call(&mut g, c).expect("gelu fits")[0]
        };
        let used = add("used", x);
        add("dead", used);
        let result = add("result", used);
        g.outputs.push(("y".into(), result));
        let names: Vec<String> = eliminate(&g).nodes.into_iter().map(|n| n.name).collect();
        assert_eq!(names, ["used", "result"]);
    }
}
