// Shows openapi.json with Swagger UI. Nothing here or there loads anything from another host.

const KEY = "pollux-key"; // where the status page keeps the key of this tab
const THEME = "pollux-theme";

const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => {
  const chosen = localStorage.getItem(THEME);
  document.documentElement.classList.toggle("dark-mode", chosen === "dark" || (chosen !== "light" && dark.matches));
};
paint();
dark.addEventListener("change", paint);

const ui = SwaggerUIBundle({
  url: new URL("../openapi.json", location.href).href,
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  filter: true,
  showExtensions: false,
  tryItOutEnabled: false,
  validatorUrl: null, // it would send the description to a host of its makers
  onComplete: () => {
    const key = sessionStorage.getItem(KEY);
    if (key) ui.preauthorizeApiKey("bearer", key);
  },
  plugins: [(system) => ({
    // Marks what OpenAI's API does not have, beside the summary of the operation.
    wrapComponents: {
      OperationSummary: (Original, { React }) => (props) => {
        const place = ["path", "method"].map((name) => props.operationProps.get(name));
        const ours = system.specSelectors.specJson().getIn(["paths", ...place, "x-pollux-extension"]);
        return React.createElement("div", { className: "operation" },
          React.createElement(Original, props),
          ours && React.createElement("span", { className: "ours", title: "OpenAI's API does not have this" }, "ours"));
      },
    },
  })],
});
