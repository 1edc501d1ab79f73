/** The widget that brings plotly.js to a page, once per kernel. It draws nothing; unpacking begins as soon as it is here. */
import { unpackPlotly } from "./unpack.js";

export default {
  initialize({ model }) { unpackPlotly(model.get("code_gz")).catch(() => {}); }, // a chart that needs it tries again and shows the error
  render() {},
};
