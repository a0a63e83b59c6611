//! Takes dropout out of inference graphs, where it does nothing: readers of its output read its input.

use crate::graph::{Graph, NodeId, TensorId};

/// The graph without dropout.
pub fn remove(mut graph: Graph) -> Graph {
    let mut instead: Vec<TensorId> = graph.tensor_ids().collect();
    for n in 0..graph.nodes.len() {
        for t in &mut graph.nodes[n].operands {
            *t = instead[t.index()];
        }
        let node = &graph.nodes[n];
        if node.op == "dropout" {
            instead[node.outputs[0].index()] = node.operands[0];
        }
    }
    for (_, t) in &mut graph.outputs {
        *t = instead[t.index()];
    }
    let order: Vec<NodeId> = graph.node_ids().filter(|&n| graph.node(n).op != "dropout").collect();
    if order.len() == graph.nodes.len() { graph } else { graph.reordered(&order) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, Attrs};
    use crate::ops::build::{Call, call};
    use crate::tensor::{DType, RowExtent, Shape};

    #[test]
    fn chains_of_dropout_disappear() {
        let mut g = Graph::new("t");
        let x = g.add_input("x", DType::F32, RowExtent::Step, Shape::new([8]));
        let mut add = |op: &str, name: &str, input| {
            let attrs = if op == "dropout" { Attrs::new().with("rate", Attr::Float(0.5)) } else { Attrs::new() };
            call(&mut g, Call { op, name: name.into(), inputs: vec![input], path: None, attrs }).expect("fits")[0]
        };
        let a = add("gelu", "a", x);
        let b = add("dropout", "b", a);
        let c = add("dropout", "c", b);
        let d = add("silu", "d", c);
        let e = add("dropout", "e", d);
        g.outputs.push(("y".into(), e));
        let g = remove(g);
        let names: Vec<&str> = g.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "d"]);
        assert_eq!(g.tensor(g.outputs[0].1).name, "d");
        crate::graph::verify::verify(&g).expect("sound");
    }
}
