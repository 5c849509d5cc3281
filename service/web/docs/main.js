// Shows the service's own description with Swagger UI.

const response = await fetch("openapi.json");
const description = await response.json();
description.servers = [{ url: new URL(".", location.href).href.replace(/\/$/, "") }];  // whatever path a proxy serves this below
SwaggerUIBundle({
  spec: description,
  dom_id: "#description",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
});
